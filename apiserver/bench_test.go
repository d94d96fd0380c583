package apiserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"karve/api"
	"karve/api/codec"
)

// bench is a server that is called without a network: what is measured is the way from the handler to the store and back.
type bench struct {
	*running
	b    *testing.B
	user *tls.ConnectionState
}

func startBench(b *testing.B) *bench {
	r := start(b)
	r.serviceAccount()
	cert, _, err := r.opts.PKI.Client("bench", []string{"system:masters"}, time.Hour)
	if err != nil {
		b.Fatal(err)
	}
	block, _ := pem.Decode(cert)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		b.Fatal(err)
	}
	return &bench{r, b, &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}, HandshakeComplete: true}}
}

// sink is an http.ResponseWriter that counts.
type sink struct {
	header http.Header
	status int
	bytes  atomic.Int64
	wrote  func(p []byte)
}

func (s *sink) Header() http.Header    { return s.header }
func (s *sink) WriteHeader(status int) { s.status = status }
func (s *sink) Flush()                 {}
func (s *sink) Write(p []byte) (int, error) {
	s.bytes.Add(int64(len(p)))
	if s.wrote != nil {
		s.wrote(p)
	}
	return len(p), nil
}

func (x *bench) request(ctx context.Context, method, path string, body []byte, content string) *http.Request {
	u, err := url.ParseRequestURI(path)
	if err != nil {
		x.b.Fatal(err)
	}
	r := &http.Request{Method: method, URL: u, Proto: "HTTP/2.0", ProtoMajor: 2, Header: http.Header{"Accept": {codec.Protobuf}, "User-Agent": {"bench/1"}},
		Host: "bench", RequestURI: path, TLS: x.user, Body: http.NoBody}
	if body != nil {
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		r.Header["Content-Type"] = []string{content}
	}
	return r.WithContext(ctx)
}

func (x *bench) call(want int, method, path string, body []byte, content string) int64 {
	w := &sink{header: http.Header{}}
	x.ServeHTTP(w, x.request(x.b.Context(), method, path, body, content))
	if w.status != want {
		x.b.Fatalf("%s %s: status %d, want %d", method, path, w.status, want)
	}
	return w.bytes.Load()
}

const benchPods = "/api/v1/namespaces/default/pods"

// benchPod is a pod such as a Deployment makes, encoded.
func (x *bench) benchPod(name string) []byte {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "web", "tier": "front", "pod-template-hash": "6d4b75cb6d"},
		Annotations: map[string]string{"example.com/checksum": "0123456789abcdef0123456789abcdef"}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{
			{Name: "web", Image: "registry.example/web:1", Ports: []corev1.ContainerPort{{ContainerPort: 8080, Name: "http"}},
				Env:          []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "two"}},
				Resources:    corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse("100m"), "memory": resource.MustParse("64Mi")}},
				VolumeMounts: []corev1.VolumeMount{{Name: "tmp", MountPath: "/tmp"}}},
			{Name: "sidecar", Image: "registry.example/sidecar:1", Args: []string{"--listen=:9090"}}},
			Volumes: []corev1.Volume{{Name: "tmp", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}}}
	body, err := codec.Body(p)
	if err != nil {
		x.b.Fatal(err)
	}
	return codec.Envelope(api.Of(p).GVK(), body)
}

func (x *bench) fill(n int) {
	for i := range n {
		x.call(http.StatusCreated, "POST", benchPods, x.benchPod(fmt.Sprint("p", i)), codec.Protobuf)
	}
	x.b.ReportAllocs()
	x.b.ResetTimer()
}

func BenchmarkCreate(b *testing.B) {
	x := startBench(b)
	x.fill(1)
	for i := range b.N {
		x.call(http.StatusCreated, "POST", benchPods, x.benchPod(fmt.Sprint("b", i)), codec.Protobuf)
	}
}

func BenchmarkGet(b *testing.B) {
	x := startBench(b)
	x.fill(100)
	for i := range b.N {
		x.call(http.StatusOK, "GET", fmt.Sprint(benchPods, "/p", i%100), nil, "")
	}
}

// BenchmarkList reads 1,000 pods.
func BenchmarkList(b *testing.B) {
	x := startBench(b)
	x.fill(1000)
	var size int64
	for range b.N {
		size = x.call(http.StatusOK, "GET", benchPods, nil, "")
	}
	b.ReportMetric(float64(size)/1024, "KiB")
}

// BenchmarkListSelected picks none of 1,000 pods, by label and by field.
func BenchmarkListSelected(b *testing.B) {
	for _, q := range []string{"labelSelector=app%3Dnone", "fieldSelector=spec.nodeName%3Dnone"} {
		b.Run(q[:5], func(b *testing.B) {
			x := startBench(b)
			x.fill(1000)
			for range b.N {
				x.call(http.StatusOK, "GET", benchPods+"?"+q, nil, "")
			}
		})
	}
}

func BenchmarkPatchStatus(b *testing.B) {
	x := startBench(b)
	x.fill(100)
	for i := range b.N {
		x.call(http.StatusOK, "PATCH", fmt.Sprint(benchPods, "/p", i%100, "/status"),
			fmt.Appendf(nil, `{"status":{"message":"m%d","podIP":"10.0.0.1"}}`, i), "application/strategic-merge-patch+json")
	}
}

func BenchmarkDelete(b *testing.B) {
	x := startBench(b)
	x.fill(b.N)
	for i := range b.N {
		x.call(http.StatusOK, "DELETE", fmt.Sprint(benchPods, "/p", i, "?gracePeriodSeconds=0"), nil, "")
	}
}

// BenchmarkWatch has 100 watchers see each of the patches; an operation is one patch.
func BenchmarkWatch(b *testing.B) {
	const watchers = 100
	x := startBench(b)
	x.fill(10)
	ctx, stop := context.WithCancel(b.Context())
	var wg, ready sync.WaitGroup
	var events atomic.Int64
	want := int64(b.N) * watchers
	all := make(chan struct{})
	for range watchers {
		wg.Add(1)
		ready.Add(1)
		go func() {
			defer wg.Done()
			w := &sink{header: http.Header{}}
			w.wrote = func(p []byte) {
				for len(p) >= 4 { // each event says how long it is
					n := 4 + int(binary.BigEndian.Uint32(p))
					p = p[min(n, len(p)):]
					if events.Add(1) == want {
						close(all)
					}
				}
			}
			ready.Done()
			x.ServeHTTP(w, x.request(ctx, "GET", benchPods+"?watch=1&resourceVersion="+fmt.Sprint(x.store.Revision()), nil, ""))
		}()
	}
	ready.Wait()
	time.Sleep(100 * time.Millisecond) // for the watches to be open
	b.ResetTimer()
	for i := range b.N {
		x.call(http.StatusOK, "PATCH", fmt.Sprint(benchPods, "/p", i%10, "/status"),
			fmt.Appendf(nil, `{"status":{"message":"m%d"}}`, i), "application/strategic-merge-patch+json")
	}
	<-all
	b.StopTimer()
	stop()
	wg.Wait()
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(want), "ns/event")
}

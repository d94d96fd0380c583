package apiserver

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"karve/api"
	"karve/apiserver/authn"
	"karve/apiserver/resource"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// tunnel passes a connection that is to change its protocol on to a kubelet and joins the two only after the kubelet has
// answered 101; on any other answer the kubelet's connection is closed, so that it can never be used for another request.
func (s *Server) tunnel(w http.ResponseWriter, r *http.Request, u *url.URL) error {
	if p := strings.ToLower(r.Header.Get("Upgrade")); p != "websocket" && !strings.HasPrefix(p, "spdy/") {
		return apierrors.NewBadRequest("you must specify at least 1 of stdin, stdout, stderr and upgrade the connection (SPDY or WebSocket)")
	}
	cfg := s.nodes.tr.TLSClientConfig.Clone()
	cfg.NextProtos = []string{"http/1.1"}
	d := &tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}, Config: cfg}
	back, err := d.DialContext(r.Context(), "tcp", u.Host)
	if err != nil {
		return apierrors.NewInternalError(fmt.Errorf("error dialing backend: %w", err))
	}
	defer back.Close()
	defer context.AfterFunc(r.Context(), func() { back.Close() })() // a kubelet that does not answer is not waited for
	out, err := http.NewRequestWithContext(r.Context(), r.Method, u.String(), nil)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	out.Header = r.Header.Clone()
	out.Header.Del("Authorization")
	authn.DropImpersonation(out.Header)
	if err := out.Write(back); err != nil {
		return apierrors.NewInternalError(fmt.Errorf("error sending request to backend: %w", err))
	}
	br := bufio.NewReader(back)
	res, err := http.ReadResponse(br, out)
	if err != nil {
		return apierrors.NewInternalError(fmt.Errorf("error reading answer of backend: %w", err))
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		defer res.Body.Close()
		return upstreamError(res)
	}
	front, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return apierrors.NewBadRequest("the connection cannot be upgraded: use HTTP/1.1")
	}
	defer front.Close()
	_ = front.SetDeadline(time.Time{})
	if err := res.Write(front); err != nil {
		return nil
	}
	join(front, buf.Reader, back, br)
	return nil
}

// join copies both ways until one side ends, then closes both.
func join(a net.Conn, fromA io.Reader, b net.Conn, fromB io.Reader) {
	var wg sync.WaitGroup
	var once sync.Once
	end := func() { once.Do(func() { a.Close(); b.Close() }) }
	wg.Go(func() { _, _ = io.Copy(b, fromA); end() })
	wg.Go(func() { _, _ = io.Copy(a, fromB); end() })
	wg.Wait()
}

// endpointOf picks a ready endpoint of a Service for the proxy, by port name or number.
func (s *Server) endpointOf(r *http.Request, svc *corev1.Service, port string) (addr, targetPort string, err error) {
	name := port
	for i := range svc.Spec.Ports {
		p := &svc.Spec.Ports[i]
		if port == "" && len(svc.Spec.Ports) == 1 || port == p.Name || port == strconv.Itoa(int(p.Port)) {
			name = p.Name
			break
		}
	}
	row := api.ByResource(discoveryv1.SchemeGroupVersion.WithResource("endpointslices"))
	page, err := s.door.List(r.Context(), &resource.Call{Row: row, Namespace: svc.Namespace}, &metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + svc.Name})
	if err != nil {
		return "", "", err
	}
	if len(page.Records) == 0 {
		row := api.ByResource(corev1.SchemeGroupVersion.WithResource("endpoints"))
		if _, err := s.door.Get(r.Context(), &resource.Call{Row: row, Namespace: svc.Namespace, Name: svc.Name}, ""); err != nil {
			return "", "", apierrors.NewNotFound(corev1.Resource("services"), svc.Name) // nothing has looked for its endpoints yet
		}
	}
	var found [][2]string
	for _, rec := range page.Records {
		sl := resource.ObjectOf(rec).(*discoveryv1.EndpointSlice)
		for _, p := range sl.Ports {
			if p.Port == nil || p.Name != nil && *p.Name != name {
				continue
			}
			for _, e := range sl.Endpoints {
				if (e.Conditions.Ready == nil || *e.Conditions.Ready) && len(e.Addresses) > 0 {
					found = append(found, [2]string{e.Addresses[0], strconv.Itoa(int(*p.Port))})
				}
			}
		}
	}
	if len(found) == 0 {
		return "", "", apierrors.NewServiceUnavailable(fmt.Sprintf("no endpoints available for service %q", svc.Name))
	}
	f := found[rand.IntN(len(found))]
	return f[0], f[1], nil
}

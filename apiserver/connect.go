package apiserver

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"karve/api"
	"karve/apiserver/admission"
	"karve/apiserver/authz"
	"karve/apiserver/request"
	"karve/apiserver/resource"
	"karve/apiserver/rest"
)

// nodeDialer reaches kubelets over TLS with the API server's own client certificate, verified against the cluster's CA.
type nodeDialer struct {
	s    *Server
	tr   *http.Transport
	plan *http.Transport
}

func newNodeDialer(s *Server) *nodeDialer {
	d := &nodeDialer{s: s}
	d.tr = &http.Transport{TLSHandshakeTimeout: 10 * time.Second, IdleConnTimeout: 30 * time.Second, ForceAttemptHTTP2: false,
		TLSClientConfig: &tls.Config{RootCAs: s.opts.PKI.Pool(), MinVersion: tls.VersionTLS12, VerifyConnection: kubelet}}
	if cert, err := s.opts.PKI.RenewingClient("kube-apiserver-kubelet-client", []string{"system:masters"}); err == nil {
		d.tr.TLSClientConfig.GetClientCertificate = cert.GetClientCertificate
	}
	d.plan = &http.Transport{IdleConnTimeout: 30 * time.Second, DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}} // #nosec: a pod's own certificate is its own affair, as upstream has it
	return d
}

// kubelet refuses whoever is no kubelet. A node says itself where it listens: if it names the API server's own address,
// what was meant for the node would be done there, with an administrator's certificate.
func kubelet(c tls.ConnectionState) error {
	if len(c.PeerCertificates) == 0 || !strings.HasPrefix(c.PeerCertificates[0].Subject.CommonName, "system:node:") {
		return errors.New("what answers at the node's address is not a kubelet")
	}
	return nil
}

func (d *nodeDialer) close() {
	d.tr.CloseIdleConnections()
	d.plan.CloseIdleConnections()
}

// connect serves the subresources that are streams to a node, a pod or a Service.
func (s *Server) connect(w http.ResponseWriter, r *http.Request, i *request.Info, c *resource.Call) {
	var err error
	switch {
	case i.Resource == "pods" && i.Subresource == "log":
		err = s.podLog(w, r, c)
	case i.Resource == "pods" && i.Subresource != "proxy":
		err = s.podStream(w, r, i, c)
	case i.Subresource == "proxy":
		err = s.proxy(w, r, i, c)
	default:
		err = apierrors.NewMethodNotSupported(c.Row.GR(), i.Verb)
	}
	if err != nil {
		rest.WriteError(w, r, err)
	}
}

// nodeURL returns where a node's kubelet listens; the address comes from the Node object alone.
func (s *Server) nodeURL(r *http.Request, name string) (*url.URL, error) {
	row := api.ByResource(corev1.SchemeGroupVersion.WithResource("nodes"))
	rec, err := s.door.Get(r.Context(), &resource.Call{Row: row, Name: name}, "")
	if err != nil {
		return nil, err
	}
	node := resource.ObjectOf(rec).(*corev1.Node)
	port := node.Status.DaemonEndpoints.KubeletEndpoint.Port
	if port == 0 {
		port = 10250
	}
	for _, want := range []corev1.NodeAddressType{corev1.NodeInternalIP, corev1.NodeExternalIP, corev1.NodeHostName} {
		for _, a := range node.Status.Addresses {
			if a.Type == want {
				return &url.URL{Scheme: "https", Host: net.JoinHostPort(a.Address, strconv.Itoa(int(port)))}, nil
			}
		}
	}
	return nil, fmt.Errorf("no preferred addresses found; known addresses: %v", node.Status.Addresses)
}

func (s *Server) pod(r *http.Request, c *resource.Call) (*corev1.Pod, error) {
	rec, err := s.door.Get(r.Context(), c, "")
	if err != nil {
		return nil, err
	}
	return resource.ObjectOf(rec).(*corev1.Pod), nil
}

// containerOf picks the container a request is about, or says which there are.
func containerOf(pod *corev1.Pod, name string) (string, error) {
	var names []string
	for i := range pod.Spec.Containers {
		names = append(names, pod.Spec.Containers[i].Name)
	}
	if name == "" {
		if d := pod.Annotations["kubectl.kubernetes.io/default-container"]; d != "" {
			name = d
		} else if len(names) == 1 {
			return names[0], nil
		} else {
			var inits []string
			for i := range pod.Spec.InitContainers {
				inits = append(inits, pod.Spec.InitContainers[i].Name)
			}
			msg := fmt.Sprintf("a container name must be specified for pod %s, choose one of: %s", pod.Name, names)
			if len(inits) > 0 {
				msg += fmt.Sprintf(" or one of the init containers: %s", inits)
			}
			return "", apierrors.NewBadRequest(msg)
		}
	}
	for i := range pod.Spec.InitContainers {
		names = append(names, pod.Spec.InitContainers[i].Name)
	}
	for i := range pod.Spec.EphemeralContainers {
		names = append(names, pod.Spec.EphemeralContainers[i].Name)
	}
	for _, n := range names {
		if n == name {
			return name, nil
		}
	}
	return "", apierrors.NewBadRequest(fmt.Sprintf("container %s is not valid for pod %s", name, pod.Name))
}

// checkLogOptions judges the query of a request for a log.
func checkLogOptions(pod string, q url.Values) error {
	var errs field.ErrorList
	for _, o := range []struct {
		name   string
		lowest int64
	}{{"tailLines", 0}, {"limitBytes", 1}, {"sinceSeconds", 1}} {
		text := q.Get(o.name)
		if text == "" {
			continue
		}
		n, err := strconv.ParseInt(text, 10, 64)
		switch {
		case err != nil:
			return apierrors.NewBadRequest(err.Error())
		case n < o.lowest && o.lowest == 0:
			errs = append(errs, field.Invalid(field.NewPath(o.name), n, "must be greater than or equal to 0"))
		case n < o.lowest:
			errs = append(errs, field.Invalid(field.NewPath(o.name), n, "must be greater than 0"))
		}
	}
	if q.Get("sinceSeconds") != "" && q.Get("sinceTime") != "" {
		errs = append(errs, field.Forbidden(field.NewPath(""), "at most one of `sinceTime` or `sinceSeconds` may be specified"))
	}
	if len(errs) > 0 {
		return apierrors.NewInvalid(schema.GroupKind{Kind: "PodLogOptions"}, pod, errs)
	}
	return nil
}

func (s *Server) podLog(w http.ResponseWriter, r *http.Request, c *resource.Call) error {
	q := r.URL.Query()
	if err := checkLogOptions(c.Name, q); err != nil {
		return err
	}
	pod, err := s.pod(r, c)
	if err != nil {
		return err
	}
	container, err := containerOf(pod, q.Get("container"))
	if err != nil {
		return err
	}
	if pod.Spec.NodeName == "" {
		w.WriteHeader(http.StatusNoContent) // nothing has run, so there is nothing to read
		return nil
	}
	u, err := s.nodeURL(r, pod.Spec.NodeName)
	if err != nil {
		return err
	}
	q.Del("container")
	insecure := q.Get("insecureSkipTLSVerifyBackend")
	q.Del("insecureSkipTLSVerifyBackend")
	_ = insecure // the node's certificate is always verified: karve signs it itself
	u.Path, u.RawQuery = fmt.Sprintf("/containerLogs/%s/%s/%s", pod.Namespace, pod.Name, container), q.Encode()
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, u.String(), nil)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	res, err := s.nodes.tr.RoundTrip(req)
	if err != nil {
		return apierrors.NewInternalError(fmt.Errorf("Get %q: %w", u.String(), err))
	}
	defer res.Body.Close()
	if res.StatusCode >= 300 {
		return upstreamError(res)
	}
	w.Header().Set("Content-Type", "text/plain")
	w.WriteHeader(http.StatusOK)
	copyFlushing(w, res.Body)
	return nil
}

// upstreamError passes a kubelet's refusal on as a Status.
func upstreamError(res *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(res.Body, 64*1024))
	text := strings.TrimSpace(string(b))
	if res.StatusCode == http.StatusBadRequest {
		return apierrors.NewBadRequest(text)
	}
	return apierrors.NewGenericServerResponse(res.StatusCode, "get", corev1.Resource("pods/log"), "", text, 0, true)
}

func copyFlushing(w http.ResponseWriter, from io.Reader) {
	flush := http.NewResponseController(w)
	buf := make([]byte, 32*1024)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, e := w.Write(buf[:n]); e != nil || flush.Flush() != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// podStream passes exec, attach and portforward on to the pod's kubelet, after admission.
func (s *Server) podStream(w http.ResponseWriter, r *http.Request, i *request.Info, c *resource.Call) error {
	if i.Verb != "create" {
		// A WebSocket begins with GET, but what it does is not reading: who may only get must not run commands.
		if err := s.decide(r.Context(), &authz.Attributes{User: c.User, Verb: "create", ResourceRequest: true, Namespace: i.Namespace,
			Group: i.Group, Version: i.Version, Resource: i.Resource, Subresource: i.Subresource, Name: i.Name}); err != nil {
			return err
		}
	}
	pod, err := s.pod(r, c)
	if err != nil {
		return err
	}
	a := &admission.Attributes{Operation: admission.Connect, Row: c.Row, Subresource: c.Sub, Namespace: c.Namespace, Name: c.Name, Object: pod, User: c.User}
	if err := s.door.Admission().Validate(r.Context(), a); err != nil {
		return err
	}
	q := r.URL.Query()
	path := fmt.Sprintf("/portForward/%s/%s", pod.Namespace, pod.Name)
	if i.Subresource != "portforward" {
		container, err := containerOf(pod, q.Get("container"))
		if err != nil {
			return err
		}
		path = fmt.Sprintf("/%s/%s/%s/%s", i.Subresource, pod.Namespace, pod.Name, container)
		q = streamQuery(q)
	}
	if pod.Spec.NodeName == "" {
		return apierrors.NewBadRequest(fmt.Sprintf("pod %s does not have a host assigned", pod.Name))
	}
	u, err := s.nodeURL(r, pod.Spec.NodeName)
	if err != nil {
		return err
	}
	u.Path, u.RawQuery = path, q.Encode()
	return s.tunnel(w, r, u)
}

// streamQuery turns the API's options of exec and attach into the kubelet's.
func streamQuery(q url.Values) url.Values {
	out := url.Values{"command": q["command"]}
	if len(q["command"]) == 0 {
		out.Del("command")
	}
	for from, to := range map[string]string{"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"} {
		if v := q.Get(from); v == "true" || v == "1" {
			out.Set(to, "1")
		}
	}
	return out
}

// proxy serves nodes/proxy, pods/proxy and services/proxy.
func (s *Server) proxy(w http.ResponseWriter, r *http.Request, i *request.Info, c *resource.Call) error {
	u, tr, err := s.proxyTarget(r, i, c)
	if err != nil {
		return err
	}
	if !i.HasRest && (r.Method == http.MethodGet || r.Method == http.MethodHead) && i.Resource != "nodes" {
		http.Redirect(w, r, r.URL.Path+"/", http.StatusMovedPermanently)
		return nil
	}
	u.Path, u.RawQuery = "/"+i.Rest, r.URL.RawQuery
	p := &httputil.ReverseProxy{Transport: tr, FlushInterval: -1, ErrorLog: nil,
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.Out.URL, pr.Out.Host = u, u.Host
			pr.Out.Header.Del("Authorization")
			pr.SetXForwarded()
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			rest.WriteError(w, r, apierrors.NewServiceUnavailable(fmt.Sprintf("error trying to reach service: %v", err)))
		}}
	p.ServeHTTP(w, r)
	return nil
}

func (s *Server) proxyTarget(r *http.Request, i *request.Info, c *resource.Call) (*url.URL, http.RoundTripper, error) {
	scheme, name, port := splitName(c.Name)
	call := *c
	call.Name, call.Sub = name, ""
	if i.Resource == "nodes" {
		u, err := s.nodeURL(r, name)
		return u, s.nodes.tr, err
	}
	rec, err := s.door.Get(r.Context(), &call, "")
	if err != nil {
		return nil, nil, err
	}
	switch o := resource.ObjectOf(rec).(type) {
	case *corev1.Pod:
		if port == "" && len(o.Spec.Containers) > 0 && len(o.Spec.Containers[0].Ports) > 0 {
			port = strconv.Itoa(int(o.Spec.Containers[0].Ports[0].ContainerPort))
		}
		if o.Status.PodIP == "" {
			return nil, nil, errAddress
		}
		return dialable(scheme, o.Status.PodIP, port, s.nodes.plan)
	case *corev1.Service:
		addr, p, err := s.endpointOf(r, o, port)
		if err != nil {
			return nil, nil, err
		}
		return dialable(scheme, addr, p, s.nodes.plan)
	}
	return nil, nil, apierrors.NewMethodNotSupported(c.Row.GR(), "proxy")
}

var errAddress = apierrors.NewBadRequest("address not allowed")

// dialable refuses what a pod's address can never be, so that the proxy cannot be turned on the server itself.
func dialable(scheme, addr, port string, tr http.RoundTripper) (*url.URL, http.RoundTripper, error) {
	ip := net.ParseIP(addr)
	if ip == nil || ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.IsUnspecified() || ip.IsMulticast() {
		return nil, nil, errAddress
	}
	if scheme == "" {
		scheme = "http"
	}
	if scheme != "http" && scheme != "https" {
		return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("invalid scheme %q", scheme))
	}
	if n, err := strconv.ParseUint(port, 10, 16); port != "" && (err != nil || n == 0) {
		return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("invalid port %q", port))
	}
	host := ip.String()
	if port != "" {
		host = net.JoinHostPort(host, port)
	} else if ip.To4() == nil {
		host = "[" + host + "]"
	}
	return &url.URL{Scheme: scheme, Host: host}, tr, nil
}

// splitName reads [scheme:]name[:port].
func splitName(s string) (scheme, name, port string) {
	switch p := strings.Split(s, ":"); len(p) {
	case 2:
		return "", p[0], p[1]
	case 3:
		return p[0], p[1], p[2]
	}
	return "", s, ""
}

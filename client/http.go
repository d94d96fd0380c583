package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"

	"karve/api"
)

// HTTPOptions says where an API server is and who asks.
type HTTPOptions struct {
	// Server is the base URL, https://host:port with an optional path.
	Server string
	// TLS holds the trusted authorities and the client certificate; nil means the system's authorities. It is not changed.
	TLS *tls.Config
	// BearerToken, when set, is called for every request, so that a rotated token is used at once.
	BearerToken func() string
	UserAgent   string
}

// maxRetries bounds how often a request that the server has put off (429 with Retry-After) is sent again.
const maxRetries = 10

type httpTransport struct {
	base   *url.URL
	client *http.Client
	token  func() string
	agent  string
}

var verbMethods = map[string]string{
	"get": http.MethodGet, "list": http.MethodGet, "watch": http.MethodGet, "create": http.MethodPost, "update": http.MethodPut,
	"patch": http.MethodPatch, "delete": http.MethodDelete, "deletecollection": http.MethodDelete,
}

// NewHTTP returns a transport to an API server. It connects on first use. Built-in kinds travel as protobuf, others as
// JSON and decode to *unstructured.Unstructured. A request the server puts off with 429 and Retry-After is sent again, at
// most 10 times. No request has a time limit but that of its context.
func NewHTTP(o HTTPOptions) (Transport, error) {
	base, err := url.Parse(o.Server)
	if err != nil {
		return nil, fmt.Errorf("parse server address: %w", err)
	}
	if (base.Scheme != "https" && base.Scheme != "http") || base.Host == "" {
		return nil, fmt.Errorf("parse server address %q: it must look like https://host:port", o.Server)
	}
	base.Path = strings.TrimRight(base.Path, "/")
	conf := o.TLS
	if conf != nil {
		conf = conf.Clone()
	}
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	rt := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialer.DialContext,
		TLSClientConfig:     conf,
		TLSHandshakeTimeout: 10 * time.Second,
		ForceAttemptHTTP2:   true,
		DisableCompression:  true,
		MaxIdleConnsPerHost: 8,
		IdleConnTimeout:     90 * time.Second,
		// A watch can be silent for minutes: only a ping tells a dead connection from a quiet one.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
	}
	agent := o.UserAgent
	if agent == "" {
		agent = "karve"
	}
	return &httpTransport{base: base, token: o.BearerToken, agent: agent, client: &http.Client{
		Transport: rt,
		// An API server does not send its clients elsewhere; following would hand our credentials to whoever is named.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

func (t *httpTransport) Do(ctx context.Context, r *Request) (runtime.Object, error) {
	if r.Verb == "watch" {
		return nil, errors.New("watch is not carried by Do")
	}
	resp, err := t.send(ctx, r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := readAll(resp)
	if err != nil {
		return nil, fmt.Errorf("%s: read answer: %w", what(r), err)
	}
	obj, err := decode(resp.Header.Get("Content-Type"), data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what(r), err)
	}
	return obj, nil
}

func (t *httpTransport) Watch(ctx context.Context, r *Request) (watch.Interface, error) {
	req := *r
	req.Verb = "watch"
	ctx, cancel := context.WithCancel(ctx)
	resp, err := t.send(ctx, &req)
	if err != nil {
		cancel()
		return nil, err
	}
	w, err := newHTTPWatch(ctx, cancel, resp)
	if err != nil {
		cancel()
		resp.Body.Close()
		return nil, fmt.Errorf("%s: %w", what(&req), err)
	}
	return w, nil
}

// send sends r until the server accepts it, and returns an answer of status 2xx; any other is returned as an error.
func (t *httpTransport) send(ctx context.Context, r *Request) (*http.Response, error) {
	u, err := t.url(r)
	if err != nil {
		return nil, err
	}
	body, contentType, err := encodeBody(r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what(r), err)
	}
	for attempt := 0; ; attempt++ {
		req, err := http.NewRequestWithContext(ctx, verbMethods[r.Verb], u, bytes.NewReader(body))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what(r), err)
		}
		if body == nil {
			req.Body, req.GetBody = nil, nil
		} else {
			req.Header.Set("Content-Type", contentType)
		}
		req.Header.Set("Accept", accept(r))
		req.Header.Set("User-Agent", t.agent)
		if t.token != nil {
			if token := t.token(); token != "" {
				req.Header.Set("Authorization", "Bearer "+token)
			}
		}
		resp, err := t.client.Do(req)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what(r), err)
		}
		if resp.StatusCode >= 200 && resp.StatusCode < 300 {
			return resp, nil
		}
		wait, again := retryAfter(resp)
		serr := statusError(r, resp)
		resp.Body.Close()
		if !again || attempt >= maxRetries {
			return nil, serr
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, fmt.Errorf("%s: %w", what(r), ctx.Err())
		}
	}
}

// retryAfter reports how long the server asks to wait before the request is sent again.
func retryAfter(resp *http.Response) (time.Duration, bool) {
	if resp.StatusCode != http.StatusTooManyRequests {
		return 0, false
	}
	n, err := strconv.Atoi(resp.Header.Get("Retry-After"))
	if err != nil || n < 0 {
		return 0, false
	}
	return time.Duration(n) * time.Second, true
}

func readAll(resp *http.Response) ([]byte, error) {
	if n := resp.ContentLength; n > 0 && n < 1<<30 {
		data := make([]byte, n)
		_, err := io.ReadFull(resp.Body, data)
		return data, err
	}
	return io.ReadAll(resp.Body)
}

// statusError returns what the server said, or what its status code says when the body is no Status.
func statusError(r *Request, resp *http.Response) error {
	data, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if obj, err := decode(resp.Header.Get("Content-Type"), data); err == nil {
		if s, ok := obj.(*metav1.Status); ok && s.Status != metav1.StatusSuccess {
			return &apierrors.StatusError{ErrStatus: *s}
		}
	}
	message := strings.TrimSpace(string(data[:min(len(data), 2048)]))
	if message == "" || bytes.IndexByte(data, 0) >= 0 {
		message = "unknown"
	}
	after, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
	return apierrors.NewGenericServerResponse(resp.StatusCode, verbMethods[r.Verb], r.Resource.GroupResource(), r.Name, message, after, true)
}

func what(r *Request) string {
	s := r.Verb + " " + r.Resource.Resource
	if r.Subresource != "" {
		s += "/" + r.Subresource
	}
	switch {
	case r.Namespace != "" && r.Name != "":
		s += " " + r.Namespace + "/" + r.Name
	case r.Namespace+r.Name != "":
		s += " " + r.Namespace + r.Name
	}
	return s
}

// url builds the address of a request. A name that would change the path is refused.
func (t *httpTransport) url(r *Request) (string, error) {
	if verbMethods[r.Verb] == "" {
		return "", fmt.Errorf("%s: no such verb", what(r))
	}
	var p []string
	if r.Resource.Group == "" {
		p = append(p, "api", r.Resource.Version)
	} else {
		p = append(p, "apis", r.Resource.Group, r.Resource.Version)
	}
	if r.Namespace != "" {
		p = append(p, "namespaces", r.Namespace)
	}
	p = append(p, r.Resource.Resource)
	if r.Name != "" {
		p = append(p, r.Name)
	}
	if r.Subresource != "" {
		p = append(p, strings.Split(r.Subresource, "/")...)
	}
	u := *t.base
	var escaped strings.Builder
	escaped.WriteString(u.EscapedPath())
	for _, s := range p {
		if s == "" || s == "." || s == ".." || strings.ContainsAny(s, "/%") {
			return "", fmt.Errorf("%s: %q cannot be part of a path", what(r), s)
		}
		escaped.WriteByte('/')
		escaped.WriteString(url.PathEscape(s))
	}
	u.RawQuery = query(r).Encode()
	s := u.Scheme + "://" + u.Host + escaped.String()
	if u.RawQuery != "" {
		s += "?" + u.RawQuery
	}
	return s, nil
}

func query(r *Request) url.Values {
	q := url.Values{}
	set := func(key, value string) {
		if value != "" {
			q.Set(key, value)
		}
	}
	switch r.Verb {
	case "list", "watch", "deletecollection":
		l := &r.List
		set("labelSelector", l.LabelSelector)
		set("fieldSelector", l.FieldSelector)
		set("resourceVersion", l.ResourceVersion)
		set("resourceVersionMatch", string(l.ResourceVersionMatch))
		set("continue", l.Continue)
		if l.Limit > 0 {
			q.Set("limit", strconv.FormatInt(l.Limit, 10))
		}
		if l.TimeoutSeconds != nil {
			q.Set("timeoutSeconds", strconv.FormatInt(*l.TimeoutSeconds, 10))
		}
		if l.SendInitialEvents != nil {
			q.Set("sendInitialEvents", strconv.FormatBool(*l.SendInitialEvents))
		}
		if r.Verb == "watch" {
			q.Set("watch", "true")
			if l.AllowWatchBookmarks {
				q.Set("allowWatchBookmarks", "true")
			}
		}
	case "create", "update", "patch":
		set("fieldManager", r.FieldManager)
		if r.DryRun {
			q.Set("dryRun", metav1.DryRunAll)
		}
		if r.Verb == "patch" && r.Force {
			q.Set("force", "true")
		}
	}
	return q
}

func accept(r *Request) string {
	if api.ByResource(r.Resource) == nil {
		return mediaJSON
	}
	if r.Verb == "watch" {
		return mediaProtobuf + ";stream=watch," + mediaJSON
	}
	return mediaProtobuf + "," + mediaJSON
}

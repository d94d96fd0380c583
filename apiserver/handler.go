package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/uuid"
	flowv1 "k8s.io/api/flowcontrol/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"karve/apiserver/advice"
	"karve/apiserver/authn"
	"karve/apiserver/authz"
	"karve/apiserver/fairness"
	"karve/apiserver/request"
	"karve/apiserver/resource"
	"karve/apiserver/rest"
)

// requestTimeout bounds every request that is not a stream, as upstream's default does.
const requestTimeout = time.Minute

// ServeHTTP takes one request through authentication, its turn among the others, and authorization to what serves it.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	info := request.Parse(r)
	track := s.requests.Begin(w, r, info, streams(info))
	defer track.End()
	w = track
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler {
				panic(p)
			}
			s.log.Error("request handler broke", "method", r.Method, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
			rest.WriteError(w, r, apierrors.NewInternalError(errors.New("the server broke on this request; its log says where")))
		}
	}()
	w.Header().Set("Audit-Id", auditID(r))
	w.Header().Set("Cache-Control", "no-cache, private") // unless who answers knows better
	user, err := s.authenticate(r, info)
	if err != nil {
		rest.WriteError(w, r, err)
		return
	}
	if !streams(info) {
		limit, err := timeoutOf(r)
		if err != nil {
			rest.WriteError(w, r, err)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), limit)
		defer cancel()
		r = r.WithContext(ctx)
	}
	if !streams(info) || info.Verb == "watch" {
		track.Waiting()
		turn, err := s.fair.Admit(w, r, info, user)
		track.Waited()
		if err != nil {
			if !errors.Is(err, context.Canceled) { // the client is gone
				rest.WriteError(w, r, err)
			}
			return
		}
		defer turn.Done()
		if info.Verb == "watch" {
			r = r.WithContext(fairness.With(r.Context(), turn))
		}
	}
	if err := s.authorize(r, info, user); err != nil {
		rest.WriteError(w, r, err)
		return
	}
	s.route(w, r, info, user)
	if info.Group == flowv1.GroupName && mutates(info.Verb) {
		s.fair.Settle(r.Context())
	}
}

// auditID is what a request is to be found by: the id that its client gave it, or a new one.
func auditID(r *http.Request) string {
	if id := r.Header.Get("Audit-Id"); id != "" {
		return id
	}
	return uuid.NewString()
}

func mutates(verb string) bool {
	switch verb {
	case "create", "update", "patch", "delete", "deletecollection":
		return true
	}
	return false
}

// timeoutOf returns how long a request may take: what it asks for, and no longer than any.
func timeoutOf(r *http.Request) (time.Duration, error) {
	if !strings.Contains(r.URL.RawQuery, "timeout=") {
		return requestTimeout, nil
	}
	text := r.URL.Query().Get("timeout")
	if text == "" {
		return requestTimeout, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, apierrors.NewBadRequest("invalid timeout specified in the request URL - " + err.Error())
	}
	if d <= 0 || d > requestTimeout {
		d = requestTimeout
	}
	return d, nil
}

func streams(i *request.Info) bool {
	switch i.Subresource {
	case "log", "exec", "attach", "portforward", "proxy":
		return true
	}
	return i.Verb == "watch" || strings.HasPrefix(i.Path, "/debug/pprof/")
}

func (s *Server) authenticate(r *http.Request, info *request.Info) (*authn.User, error) {
	user, err := s.authn.Authenticate(r)
	if err != nil {
		s.log.Debug("request not authenticated", "path", r.URL.Path, "err", err)
		return nil, unauthorized()
	}
	if user.Name == authn.Anonymous && !s.opts.Anonymous && !openPath(info.Path) {
		return nil, unauthorized()
	}
	want, asked, err := authn.RequestedUser(r)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if !asked {
		return user, nil
	}
	if err := s.mayImpersonate(r.Context(), user, want); err != nil {
		return nil, err
	}
	as, _, err := authn.ImpersonatedUser(r)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	authn.DropImpersonation(r.Header)
	return as, nil
}

func unauthorized() error {
	e := apierrors.NewUnauthorized("Unauthorized")
	return e
}

// openPath lists what may be asked without credentials even where anonymous requests are off.
func openPath(path string) bool {
	for _, p := range []string{"/healthz", "/livez", "/readyz"} {
		if path == p || strings.HasPrefix(path, p+"/") {
			return true
		}
	}
	return false
}

// mayImpersonate asks for each part of the wanted identity.
func (s *Server) mayImpersonate(ctx context.Context, user, want *authn.User) error {
	ask := func(a authz.Attributes) error {
		a.User, a.Verb, a.ResourceRequest, a.Version = user, "impersonate", true, "v1"
		if d, reason, _ := s.authz.Authorize(ctx, &a); d != authz.Allow {
			return s.ruled(ctx, &a, authz.Forbidden(&a, reason))
		}
		return nil
	}
	if ns, name, ok := authn.SplitServiceAccount(want.Name); ok {
		if err := ask(authz.Attributes{Resource: "serviceaccounts", Namespace: ns, Name: name}); err != nil {
			return err
		}
	} else if err := ask(authz.Attributes{Resource: "users", Name: want.Name}); err != nil {
		return err
	}
	for _, g := range want.Groups {
		if err := ask(authz.Attributes{Resource: "groups", Name: g}); err != nil {
			return err
		}
	}
	if want.UID != "" {
		if err := ask(authz.Attributes{Group: "authentication.k8s.io", Resource: "uids", Name: want.UID}); err != nil {
			return err
		}
	}
	for k, vs := range want.Extra {
		for _, v := range vs {
			if err := ask(authz.Attributes{Group: "authentication.k8s.io", Resource: "userextras", Subresource: k, Name: v}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Server) authorize(r *http.Request, i *request.Info, user *authn.User) error {
	a := &authz.Attributes{User: user, Verb: i.Verb, ResourceRequest: i.IsResource, Path: i.Path}
	if i.IsResource {
		a.Namespace, a.Group, a.Version, a.Resource, a.Subresource, a.Name = i.Namespace, i.Group, i.Version, i.Resource, i.Subresource, i.Name
		if i.Verb == "list" || i.Verb == "watch" || i.Verb == "deletecollection" {
			a.FieldSelector = r.URL.Query().Get("fieldSelector")
			a.Name = oneName(a.Name, a.FieldSelector)
		}
	} else if openPath(i.Path) && !s.opts.Anonymous {
		return nil
	}
	if err := s.decide(r.Context(), a); err != nil {
		return s.ruled(r.Context(), a, err)
	}
	return nil
}

// ruled adds to a refusal the rule that would have allowed the request, and to those who may list cluster roles which of
// them have it. Nodes are judged by what runs on them, which no rule says.
func (s *Server) ruled(ctx context.Context, a *authz.Attributes, err error) error {
	if _, node := authz.NodeName(a.User); node || a.User == nil {
		return err
	}
	ask := advice.Access{User: a.User.Name, Verb: a.Verb, Namespace: a.Namespace, Group: a.Group, Resource: a.Resource, Subresource: a.Subresource, Name: a.Name}
	if !a.ResourceRequest {
		ask = advice.Access{User: a.User.Name, Verb: a.Verb, Path: a.Path}
	}
	list := authz.Attributes{User: a.User, Verb: "list", ResourceRequest: true, Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles"}
	if d, _, _ := s.authz.Authorize(ctx, &list); d == authz.Allow {
		ask.Roles = s.rbac.Granting(a, 3)
	}
	return advice.Add(err, ask.Rule())
}

func (s *Server) decide(ctx context.Context, a *authz.Attributes) error {
	d, reason, err := s.authz.Authorize(ctx, a)
	if d == authz.Allow {
		return nil
	}
	if err != nil && reason == "" {
		reason = err.Error()
	}
	return authz.Forbidden(a, reason)
}

// check is authorize for the in-process transport.
func (s *Server) check(ctx context.Context, user *authn.User, verb string, c *resource.Call, list *metav1.ListOptions) error {
	return s.decide(ctx, &authz.Attributes{User: user, Verb: verb, ResourceRequest: true, Namespace: c.Namespace, Group: c.Row.Group, Version: c.Row.Version,
		Resource: c.Row.Resource, Subresource: c.Sub, Name: oneName(c.Name, list.FieldSelector), FieldSelector: list.FieldSelector})
}

// may answers for the edge whether the user of a call may do verb to its object as well.
func (s *Server) may(ctx context.Context, verb string, c *resource.Call) bool {
	return s.check(ctx, c.User, verb, c, &metav1.ListOptions{}) == nil
}

// oneName is the name a request is about: a collection narrowed down to one name counts as that object.
func oneName(name, fieldSelector string) string {
	if name != "" || fieldSelector == "" {
		return name
	}
	if sel, err := fields.ParseSelector(fieldSelector); err == nil {
		if n, ok := sel.RequiresExactMatch("metadata.name"); ok {
			return n
		}
	}
	return ""
}

// route hands an authorized request to what serves its path.
func (s *Server) route(w http.ResponseWriter, r *http.Request, i *request.Info, user *authn.User) {
	switch {
	case i.IsResource && s.known(i):
		s.rest.Serve(w, r, i, user)
	case s.disco.Serve(w, r):
	case s.api.Serve(w, r):
	case s.health.Serve(w, r):
	case s.serveOther(w, r, i):
	case s.disco.Group(i.Path):
		rest.WriteError(w, r, rest.NoPath(i))
	default:
		rest.PlainNotFound(w, i)
	}
}

// known says whether a path below a group's version is a resource's; the version itself is discovery's.
func (s *Server) known(i *request.Info) bool {
	return s.rest.Known(schema.GroupVersionResource{Group: i.Group, Version: i.Version, Resource: i.Resource})
}

func (s *Server) serveOther(w http.ResponseWriter, r *http.Request, i *request.Info) bool {
	switch strings.TrimSuffix(i.Path, "/") {
	case "/version":
		s.serveVersion(w)
	case "/.well-known/openid-configuration":
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "public, max-age=3600")
		_, _ = w.Write(s.tokens.Configuration(fmt.Sprintf("https://%s/openid/v1/jwks", s.opts.Advertise)))
	case "/openid/v1/jwks":
		w.Header().Set("Content-Type", "application/jwk-set+json")
		w.Header().Set("Cache-Control", "public, max-age=3600")
		_, _ = w.Write(s.tokens.JWKS())
	case "/statusz":
		s.serveStatusz(w, r)
	case "/flagz":
		s.serveFlagz(w, r)
	case "/metrics":
		s.serveMetrics(w, r)
	case "/metrics/slis":
		s.serveHealthMetrics(w, r)
	case "":
		s.servePaths(w)
	default:
		return s.fair.Serve(w, r) || s.servePprof(w, r)
	}
	return true
}

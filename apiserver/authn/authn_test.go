package authn

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	authnv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"karve/pki"
)

type objects map[string]metav1.Object

func (o objects) Find(_ context.Context, kind Kind, ns, name string, _ types.UID) (metav1.Object, error) {
	got, ok := o[string(kind)+" "+ns+"/"+name]
	if !ok {
		return nil, nil
	}
	return got, nil
}

func om(ns, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: ns, Name: name, UID: types.UID(name + "-uid")}
}

type fixture struct {
	pki    *pki.Authority
	now    time.Time
	objs   objects
	tokens *TokenAuthority
	a      *Authenticator
	sa     *corev1.ServiceAccount
	pod    *corev1.Pod
	node   *corev1.Node
}

func setup(t *testing.T, change func(*TokenOptions)) *fixture {
	t.Helper()
	f := &fixture{now: time.Now().Truncate(time.Second), sa: &corev1.ServiceAccount{ObjectMeta: om("ns", "sa")},
		pod: &corev1.Pod{ObjectMeta: om("ns", "pod"), Spec: corev1.PodSpec{ServiceAccountName: "sa", NodeName: "node"}}, node: &corev1.Node{ObjectMeta: om("", "node")}}
	f.objs = objects{"ServiceAccount ns/sa": f.sa, "Pod ns/pod": f.pod, "Node /node": f.node}
	var err error
	if f.pki, err = pki.Open(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	o := TokenOptions{Key: f.pki.SigningKey(), Lookup: f.objs, Now: func() time.Time { return f.now }}
	if change != nil {
		change(&o)
	}
	if f.tokens, err = NewTokenAuthority(o); err != nil {
		t.Fatal(err)
	}
	f.a = New(Options{ClientCA: f.pki.Pool(), Tokens: f.tokens, Anonymous: true, Now: o.Now, Others: []TokenAuthenticator{
		Bootstrap{Lookup: f.objs, Now: o.Now}, NewStatic(map[string]*User{"static": {Name: "fixed", Groups: []string{"g"}}})}})
	return f
}

func (f *fixture) issue(t *testing.T, req *authnv1.TokenRequest) string {
	t.Helper()
	if err := f.tokens.Request(context.Background(), req, f.sa, f.now); err != nil {
		t.Fatal(err)
	}
	return req.Status.Token
}

func podRequest() *authnv1.TokenRequest {
	return &authnv1.TokenRequest{Spec: authnv1.TokenRequestSpec{BoundObjectRef: &authnv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: "pod"}}}
}

func request(header ...string) *http.Request {
	r := httptest.NewRequest("GET", "/", nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return r
}

func withCert(t *testing.T, r *http.Request, certPEM []byte) *http.Request {
	t.Helper()
	b, _ := pem.Decode(certPEM)
	c, err := x509.ParseCertificate(b.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{c}}
	return r
}

func TestAuthenticate(t *testing.T) {
	f := setup(t, nil)
	token := f.issue(t, podRequest())
	cert, _, err := f.pki.Client("jane", []string{"devs"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	serving, _, err := f.pki.ServingPEM("jane", []string{"system:masters"}, nil, nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := pki.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	forged, _, err := stranger.Client("root", []string{"system:masters"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	saGroups := []string{"system:serviceaccounts", "system:serviceaccounts:ns", GroupAuthenticated}
	ws := wsTokenPrefix + base64.RawURLEncoding.EncodeToString([]byte(token))
	for _, c := range []struct {
		name   string
		r      *http.Request
		user   string
		groups []string
	}{
		{"nothing", request(), Anonymous, []string{GroupAnonymous}},
		{"basic", request("Authorization", "Basic YTpi"), Anonymous, []string{GroupAnonymous}},
		{"certificate", withCert(t, request(), cert), "jane", []string{"devs", GroupAuthenticated}},
		{"certificate again", withCert(t, request(), cert), "jane", []string{"devs", GroupAuthenticated}},
		{"certificate before token", withCert(t, request("Authorization", "Bearer x"), cert), "jane", []string{"devs", GroupAuthenticated}},
		{"serving certificate", withCert(t, request(), serving), "", nil},
		{"stranger's certificate", withCert(t, request(), forged), "", nil},
		{"stranger with a token", withCert(t, request("Authorization", "Bearer "+token), forged), "system:serviceaccount:ns:sa", saGroups},
		{"token", request("Authorization", "Bearer "+token), "system:serviceaccount:ns:sa", saGroups},
		{"lower case", request("Authorization", "bearer "+token), "system:serviceaccount:ns:sa", saGroups},
		{"static", request("Authorization", "Bearer static"), "fixed", []string{"g", GroupAuthenticated}},
		{"nonsense", request("Authorization", "Bearer nonsense"), "", nil},
		{"changed payload", request("Authorization", "Bearer "+strings.Replace(token, ".", ".e30", 1)), "", nil},
		{"changed signature", request("Authorization", "Bearer "+token[:len(token)-8]+"AAAAAAAA"), "", nil},
		{"websocket", request("Upgrade", "websocket", "Sec-WebSocket-Protocol", "v5.channel.k8s.io, "+ws), "system:serviceaccount:ns:sa", saGroups},
		{"websocket without another protocol", request("Upgrade", "websocket", "Sec-WebSocket-Protocol", ws), Anonymous, []string{GroupAnonymous}},
	} {
		t.Run(c.name, func(t *testing.T) {
			u, err := f.a.Authenticate(c.r)
			if c.user == "" {
				if err == nil || !errors.Is(err, ErrUnauthorized) {
					t.Fatalf("got %v %v", u, err)
				}
				if strings.Contains(err.Error(), token[20:]) || strings.Contains(err.Error(), "nonsense") {
					t.Errorf("%q holds the credential", err)
				}
				return
			}
			if err != nil || u.Name != c.user || !reflect.DeepEqual(u.Groups, c.groups) {
				t.Fatalf("got %+v %v", u, err)
			}
			if h := c.r.Header.Get("Authorization"); h != "" {
				t.Error("the credential is still in the header")
			}
			if strings.Contains(c.r.Header.Get("Sec-Websocket-Protocol"), "bearer") && u.Name != Anonymous {
				t.Error("the credential is still in the protocol header")
			}
		})
	}
	if _, err := New(Options{Tokens: f.tokens}).Authenticate(request()); !errors.Is(err, ErrUnauthorized) {
		t.Errorf("anonymous, though it is not allowed: %v", err)
	}
	f.now = f.now.Add(2 * time.Hour) // past the life of the certificate that was found good before
	if u, err := f.a.Authenticate(withCert(t, request(), cert)); err == nil {
		t.Errorf("expired certificate: %v", u)
	}
}

func TestTokenClaimsAndUser(t *testing.T) {
	f := setup(t, func(o *TokenOptions) { o.Extend = true })
	req := podRequest()
	seconds := int64(MountedTokenSeconds)
	req.Spec.ExpirationSeconds = &seconds
	token := f.issue(t, req)
	raw, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	jti, _ := got["jti"].(string)
	now := float64(f.now.Unix())
	want := map[string]any{"iss": DefaultIssuer, "aud": []any{DefaultIssuer}, "sub": "system:serviceaccount:ns:sa", "jti": jti,
		"iat": now, "nbf": now, "exp": now + 365*24*3600,
		"kubernetes.io": map[string]any{"namespace": "ns", "warnafter": now + 3607,
			"serviceaccount": map[string]any{"name": "sa", "uid": "sa-uid"}, "pod": map[string]any{"name": "pod", "uid": "pod-uid"}, "node": map[string]any{"name": "node", "uid": "node-uid"}}}
	if !reflect.DeepEqual(got, want) || len(jti) != 36 {
		t.Errorf("claims\n%v\nwant\n%v", got, want)
	}
	if !req.Status.ExpirationTimestamp.Time.Equal(f.now.Add(3607*time.Second)) || *req.Spec.ExpirationSeconds != 3607 {
		t.Errorf("status %v", req.Status.ExpirationTimestamp)
	}
	u, _, err := f.a.Token(context.Background(), token, nil)
	if err != nil {
		t.Fatal(err)
	}
	extra := map[string][]string{extraCredential: {"JTI=" + jti}, extraPodName: {"pod"}, extraPodUID: {"pod-uid"}, extraNodeName: {"node"}, extraNodeUID: {"node-uid"}}
	if !reflect.DeepEqual(u.Extra, extra) || u.UID != "sa-uid" {
		t.Errorf("user %+v", u)
	}
	// Anybody can check it with the published keys alone.
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(f.tokens.JWKS(), &set); err != nil {
		t.Fatal(err)
	}
	sig, err := jose.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	keys := set.Key(sig.Signatures[0].Header.KeyID)
	if len(keys) != 1 || !keys[0].IsPublic() {
		t.Fatalf("keys %d", len(keys))
	}
	if _, err := sig.Verify(keys[0]); err != nil {
		t.Error(err)
	}
	var conf map[string]any
	if err := json.Unmarshal(f.tokens.Configuration("https://x/openid/v1/jwks"), &conf); err != nil || conf["issuer"] != DefaultIssuer || conf["jwks_uri"] != "https://x/openid/v1/jwks" {
		t.Errorf("%v %v", conf, err)
	}
}

func TestTokenDies(t *testing.T) {
	for name, c := range map[string]struct {
		kill func(f *fixture)
		want string
	}{
		"alive":                   {func(*fixture) {}, ""},
		"expired":                 {func(f *fixture) { f.now = f.now.Add(2 * time.Hour) }, "service account token has expired"},
		"not yet":                 {func(f *fixture) { f.now = f.now.Add(-time.Hour) }, "service account token is not valid yet"},
		"account gone":            {func(f *fixture) { delete(f.objs, "ServiceAccount ns/sa") }, "service account token has been invalidated"},
		"account made anew":       {func(f *fixture) { f.sa.UID = "new" }, "service account UID (new) does not match claim (sa-uid)"},
		"pod gone":                {func(f *fixture) { delete(f.objs, "Pod ns/pod") }, "service account token has been invalidated"},
		"pod made anew":           {func(f *fixture) { f.pod.UID = "new" }, "service account token has been invalidated"},
		"pod long deleted":        {func(f *fixture) { d := metav1.NewTime(f.now.Add(-2 * time.Minute)); f.pod.DeletionTimestamp = &d }, "service account token has been invalidated"},
		"pod being deleted":       {func(f *fixture) { d := metav1.NewTime(f.now.Add(-time.Second)); f.pod.DeletionTimestamp = &d }, ""},
		"node gone, pod is there": {func(f *fixture) { delete(f.objs, "Node /node") }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := setup(t, nil)
			token := f.issue(t, podRequest())
			for range 2 { // the second time it is a known token
				if _, _, err := f.a.Token(context.Background(), token, nil); err != nil {
					t.Fatal(err)
				}
			}
			c.kill(f)
			_, _, err := f.a.Token(context.Background(), token, nil)
			if c.want == "" && err != nil || c.want != "" && (err == nil || err.Error() != "[invalid bearer token, "+c.want+"]") {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestTokenRequests(t *testing.T) {
	seconds := func(n int64) func(*authnv1.TokenRequest) {
		return func(r *authnv1.TokenRequest) { r.Spec.ExpirationSeconds = &n }
	}
	ref := func(kind, version, name string, uid types.UID) func(*authnv1.TokenRequest) {
		return func(r *authnv1.TokenRequest) {
			r.Spec.BoundObjectRef = &authnv1.BoundObjectReference{Kind: kind, APIVersion: version, Name: name, UID: uid}
		}
	}
	for name, c := range map[string]struct {
		change func(*authnv1.TokenRequest)
		want   string
	}{
		"default":    {func(*authnv1.TokenRequest) {}, ""},
		"too short":  {seconds(599), `TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes`},
		"too long":   {seconds(1<<32 + 1), `TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: Invalid value: 4294967297: may not specify a duration larger than 2^32 seconds`},
		"shortened":  {seconds(1 << 32), ""},
		"node":       {ref("Node", "v1", "node", ""), ""},
		"other kind": {ref("Deployment", "apps/v1", "x", ""), "cannot bind token to object of type apps/v1, Kind=Deployment"},
		"other uid":  {ref("Pod", "v1", "pod", "old"), `Operation cannot be fulfilled on Pod "pod": the UID in the bound object reference (old) does not match the UID in record. The object might have been deleted and then recreated`},
		"no pod":     {ref("Pod", "v1", "nope", ""), `pods "nope" not found`},
		"other's":    {ref("Pod", "v1", "others", ""), `cannot bind token for serviceaccount "sa" to pod running with different serviceaccount name.`},
		"name":       {func(r *authnv1.TokenRequest) { r.Name = "x" }, "service account name (sa) does not match name in token request (x)"},
	} {
		t.Run(name, func(t *testing.T) {
			f := setup(t, func(o *TokenOptions) { o.MaxLifetime = 48 * time.Hour })
			f.objs["Pod ns/others"] = &corev1.Pod{ObjectMeta: om("ns", "others"), Spec: corev1.PodSpec{ServiceAccountName: "other"}}
			req := &authnv1.TokenRequest{}
			c.change(req)
			err := f.tokens.Request(context.Background(), req, f.sa, f.now)
			if c.want != "" {
				if err == nil || err.Error() != c.want || req.Status.Token != "" {
					t.Errorf("got %v, want %s", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if limit := f.now.Add(48 * time.Hour); req.Status.ExpirationTimestamp.After(limit) {
				t.Errorf("lives until %v", req.Status.ExpirationTimestamp)
			}
			if _, _, err := f.a.Token(context.Background(), req.Status.Token, nil); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestReview(t *testing.T) {
	f := setup(t, nil)
	other := &authnv1.TokenRequest{Spec: authnv1.TokenRequestSpec{Audiences: []string{"vault", "x"}}}
	ours, vaults := f.issue(t, &authnv1.TokenRequest{}), f.issue(t, other)
	for name, c := range map[string]struct {
		token string
		auds  []string
		good  []string
		err   string
	}{
		"ours":         {ours, nil, []string{DefaultIssuer}, ""},
		"for vault":    {vaults, []string{"vault", "y"}, []string{"vault"}, ""},
		"not for us":   {vaults, nil, nil, `[invalid bearer token, token audiences ["vault" "x"] is invalid for the target audiences ["https://kubernetes.default.svc.cluster.local"]]`},
		"not a token":  {"fake", nil, nil, "invalid bearer token"},
		"three pieces": {"ZmFrZQ.ZmFrZQ.ZmFrZQ", []string{"vault"}, nil, "invalid bearer token"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &authnv1.TokenReview{Spec: authnv1.TokenReviewSpec{Token: c.token, Audiences: c.auds}}
			if err := f.a.Review(context.Background(), r); err != nil {
				t.Fatal(err)
			}
			if r.Status.Authenticated != (c.good != nil) || !reflect.DeepEqual(r.Status.Audiences, c.good) || r.Status.Error != c.err {
				t.Errorf("%+v", r.Status)
			}
		})
	}
	if err := f.a.Review(context.Background(), &authnv1.TokenReview{}); err == nil || err.Error() != "token is required for TokenReview in authentication" {
		t.Error(err)
	}
	if _, err := f.a.Authenticate(request("Authorization", "Bearer "+vaults)); err == nil {
		t.Error("a token for another audience lets in")
	}
}

func TestBootstrapTokens(t *testing.T) {
	f := setup(t, nil)
	secret := func(change func(*corev1.Secret)) {
		s := &corev1.Secret{ObjectMeta: om("kube-system", "bootstrap-token-abcdef"), Type: corev1.SecretTypeBootstrapToken, Data: map[string][]byte{
			"token-id": []byte("abcdef"), "token-secret": []byte("0123456789abcdef"), "usage-bootstrap-authentication": []byte("true"),
			"auth-extra-groups": []byte("system:bootstrappers:karve"), "expiration": []byte(f.now.Add(time.Hour).Format(time.RFC3339))}}
		change(s)
		f.objs["Secret kube-system/bootstrap-token-abcdef"] = s
	}
	for name, c := range map[string]struct {
		change func(*corev1.Secret)
		token  string
		good   bool
	}{
		"good":         {func(*corev1.Secret) {}, "abcdef.0123456789abcdef", true},
		"wrong":        {func(*corev1.Secret) {}, "abcdef.0123456789abcdee", false},
		"unknown":      {func(*corev1.Secret) {}, "abcdee.0123456789abcdef", false},
		"expired":      {func(s *corev1.Secret) { s.Data["expiration"] = []byte("2020-01-01T00:00:00Z") }, "abcdef.0123456789abcdef", false},
		"not for this": {func(s *corev1.Secret) { delete(s.Data, "usage-bootstrap-authentication") }, "abcdef.0123456789abcdef", false},
		"other type":   {func(s *corev1.Secret) { s.Type = "Opaque" }, "abcdef.0123456789abcdef", false},
		"masters":      {func(s *corev1.Secret) { s.Data["auth-extra-groups"] = []byte("system:masters") }, "abcdef.0123456789abcdef", false},
	} {
		t.Run(name, func(t *testing.T) {
			secret(c.change)
			u, err := f.a.Authenticate(request("Authorization", "Bearer "+c.token))
			if c.good != (err == nil) {
				t.Fatalf("%v %v", u, err)
			}
			if c.good && (u.Name != "system:bootstrap:abcdef" || !reflect.DeepEqual(u.Groups, []string{"system:bootstrappers", "system:bootstrappers:karve", GroupAuthenticated})) {
				t.Errorf("%+v", u)
			}
		})
	}
}

func TestImpersonatedUser(t *testing.T) {
	for _, c := range []struct {
		header []string
		want   *User
		err    string
	}{
		{nil, nil, ""},
		{[]string{"Impersonate-User", "jane"}, &User{Name: "jane", Groups: []string{GroupAuthenticated}}, ""},
		{[]string{"Impersonate-User", "jane", "Impersonate-Group", "a,b", "Impersonate-Group", "c", "Impersonate-Uid", "u", "Impersonate-Extra-Example.com%2fscope", "x"},
			&User{Name: "jane", UID: "u", Groups: []string{"a,b", "c", GroupAuthenticated}, Extra: map[string][]string{"example.com/scope": {"x"}}}, ""},
		{[]string{"Impersonate-User", "system:serviceaccount:ns:sa"}, &User{Name: "system:serviceaccount:ns:sa", Groups: []string{"system:serviceaccounts", "system:serviceaccounts:ns", GroupAuthenticated}}, ""},
		{[]string{"Impersonate-User", "system:serviceaccount:ns:sa", "Impersonate-Group", "g"}, &User{Name: "system:serviceaccount:ns:sa", Groups: []string{"g", GroupAuthenticated}}, ""},
		{[]string{"Impersonate-User", Anonymous}, &User{Name: Anonymous, Groups: []string{GroupAnonymous}}, ""},
		{[]string{"Impersonate-Group", "devs"}, nil, `requested &user.DefaultInfo{Name:"", UID:"", Groups:[]string{"devs"}, Extra:map[string][]string(nil)} without impersonating a user name`},
		{[]string{"Impersonate-Uid", "u-1"}, nil, `requested &user.DefaultInfo{Name:"", UID:"u-1", Groups:[]string(nil), Extra:map[string][]string(nil)} without impersonating a user name`},
	} {
		r := request(c.header...)
		u, ok, err := ImpersonatedUser(r)
		if c.err != "" {
			if err == nil || err.Error() != c.err {
				t.Errorf("%v: %v", c.header, err)
			}
			continue
		}
		if err != nil || ok != (c.want != nil) || !reflect.DeepEqual(u, c.want) {
			t.Errorf("%v: got %+v %v %v", c.header, u, ok, err)
		}
		DropImpersonation(r.Header)
		if len(r.Header) != 0 {
			t.Errorf("left: %v", r.Header)
		}
	}
}

func BenchmarkKnownToken(b *testing.B) {
	dir := b.TempDir()
	a, err := pki.Open(dir)
	if err != nil {
		b.Fatal(err)
	}
	sa := &corev1.ServiceAccount{ObjectMeta: om("ns", "sa")}
	ta, err := NewTokenAuthority(TokenOptions{Key: a.SigningKey(), Lookup: objects{"ServiceAccount ns/sa": sa}})
	if err != nil {
		b.Fatal(err)
	}
	req := &authnv1.TokenRequest{}
	if err := ta.Issue(req, sa, nil, nil, time.Now()); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := ta.AuthenticateToken(context.Background(), req.Status.Token, nil); err != nil {
			b.Fatal(err)
		}
	}
}

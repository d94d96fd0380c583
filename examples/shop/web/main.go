// Command web is the shop's front: a page made of what catalog and cart answer, found by their DNS names, and of the
// greeting its second container writes. It says which version and which pods answered.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"karve/examples/shop/serve"
)

// version is set when the program is built.
var version = "v1"

func main() {
	w := &web{
		catalog: serve.Env("CATALOG", "http://catalog:8080"), cart: serve.Env("CART", "http://cart:8080"),
		greeter: serve.Env("GREETER", "http://localhost:9090"), shared: serve.Env("SHARED", "/shared"),
		token: os.Getenv("CART_TOKEN"),
		// A connection per request, so that every Service is asked anew who answers.
		client: &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}},
	}
	serve.Main(serve.Env("LISTEN", ":8080"), w.handler())
}

type web struct {
	catalog, cart, greeter, shared, token string
	client                                *http.Client
}

// page is what the front shows, at / for people and at /page for programs.
type page struct {
	Version  string   `json:"version"`
	Web      string   `json:"web"` // names of the pods that answered
	Catalog  string   `json:"catalog"`
	Cart     string   `json:"cart"`
	Greeting string   `json:"greeting"` // from the second container, by localhost
	Banner   string   `json:"banner"`   // from the second container, by the shared volume
	Items    []string `json:"items"`
	InCart   []string `json:"inCart"`
}

var layout = template.Must(template.New("page").Parse(`<!doctype html><title>Shop {{.Version}}</title>
<style>body{font:16px sans-serif;max-width:40em;margin:3em auto}code{background:#eee;padding:0 .3em}</style>
<h1>Shop {{.Version}}</h1><p>{{.Greeting}}</p><p><em>{{.Banner}}</em></p>
<h2>Catalog</h2><ul>{{range .Items}}<li>{{.}} <form style="display:inline" method="post" action="/add?item={{.}}"><button>add</button></form></li>{{end}}</ul>
<h2>Cart</h2><ul>{{range .InCart}}<li>{{.}}</li>{{else}}<li>empty</li>{{end}}</ul>
<p>Answered by <code>{{.Web}}</code>, <code>{{.Catalog}}</code>, <code>{{.Cart}}</code></p>
`))

func (s *web) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		p, err := s.page(r.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		w.Header().Set("X-Shop-Version", version)
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_ = layout.Execute(w, p)
	})
	mux.HandleFunc("GET /page", func(w http.ResponseWriter, r *http.Request) {
		p, err := s.page(r.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		w.Header().Set("X-Shop-Version", version)
		serve.JSON(w, p)
	})
	mux.HandleFunc("POST /add", func(w http.ResponseWriter, r *http.Request) {
		var answer struct{}
		if err := s.ask(r.Context(), http.MethodPost, s.cart+"/add?item="+template.URLQueryEscaper(r.URL.Query().Get("item")), &answer); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})
	return mux
}

// page asks everybody at once.
func (s *web) page(ctx context.Context) (page, error) {
	p := page{Version: version, Web: serve.Pod()}
	var catalog struct {
		Pod   string
		Items []string
	}
	var cart struct {
		Pod   string
		Items []string
	}
	var greeter struct{ Greeting string }
	asks := []func() error{
		func() error { return s.ask(ctx, http.MethodGet, s.catalog+"/items", &catalog) },
		func() error { return s.ask(ctx, http.MethodGet, s.cart+"/items", &cart) },
		func() error { return s.ask(ctx, http.MethodGet, s.greeter+"/greeting", &greeter) },
	}
	errs := make([]error, len(asks))
	var wg sync.WaitGroup
	for i, fn := range asks {
		wg.Go(func() { errs[i] = fn() })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return p, err
		}
	}
	banner, err := os.ReadFile(filepath.Join(s.shared, "banner"))
	if err != nil {
		return p, err
	}
	p.Catalog, p.Items, p.Cart, p.InCart = catalog.Pod, catalog.Items, cart.Pod, cart.Items
	p.Greeting, p.Banner = greeter.Greeting, strings.TrimSpace(string(banner))
	return p, nil
}

func (s *web) ask(ctx context.Context, method, url string, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return err
	}
	if strings.HasPrefix(url, s.cart) {
		req.Header.Set("Authorization", "Bearer "+s.token)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", url, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(out)
}

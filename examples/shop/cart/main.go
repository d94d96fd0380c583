// Command cart keeps what was put into the cart in a file on a volume, so that it outlives the process. Who asks must know
// the token, which a Secret holds.
package main

import (
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"sync"

	"karve/examples/shop/serve"
)

func main() {
	token := os.Getenv("TOKEN")
	if token == "" {
		fmt.Fprintln(os.Stderr, "TOKEN is not set")
		os.Exit(1)
	}
	c := &cart{path: filepath.Join(serve.Env("DATA", "/data"), "cart.json"), token: token}
	serve.Main(serve.Env("LISTEN", ":8080"), c.handler())
}

type cart struct {
	path, token string
	mu          sync.Mutex
}

func (c *cart) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /items", func(w http.ResponseWriter, _ *http.Request) { c.answer(w, "") })
	mux.HandleFunc("POST /add", func(w http.ResponseWriter, r *http.Request) { c.answer(w, r.URL.Query().Get("item")) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte("Bearer "+c.token)) != 1 {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func (c *cart) answer(w http.ResponseWriter, add string) {
	items, err := c.update(add)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	serve.JSON(w, map[string]any{"pod": serve.Pod(), "items": items})
}

// update adds an item, unless it is empty, and returns all.
func (c *cart) update(add string) ([]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	items := []string{}
	data, err := os.ReadFile(c.path)
	if err == nil {
		err = json.Unmarshal(data, &items)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if add == "" {
		return items, nil
	}
	items = append(items, add)
	data, err = json.Marshal(items)
	if err == nil {
		err = os.WriteFile(c.path+".new", data, 0o600)
	}
	if err == nil {
		err = os.Rename(c.path+".new", c.path)
	}
	return items, err
}

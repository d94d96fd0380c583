// Command catalog tells what the shop sells: the lines of a file, which a ConfigMap fills.
package main

import (
	"net/http"
	"os"
	"strings"

	"karve/examples/shop/serve"
)

func main() {
	serve.Main(serve.Env("LISTEN", ":8080"), handler(serve.Env("ITEMS", "/etc/catalog/items")))
}

func handler(path string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /items", func(w http.ResponseWriter, _ *http.Request) {
		data, err := os.ReadFile(path) // every time: a ConfigMap may change under us
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		items := []string{}
		for _, line := range strings.Split(string(data), "\n") {
			if line = strings.TrimSpace(line); line != "" {
				items = append(items, line)
			}
		}
		serve.JSON(w, map[string]any{"pod": serve.Pod(), "items": items})
	})
	return mux
}

// Command sidecar is the second container of web's pods: it writes a banner into the volume both share, and answers on the
// localhost both share.
package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"karve/examples/shop/serve"
)

func main() {
	greeting := serve.Env("GREETING", "Welcome")
	banner := filepath.Join(serve.Env("SHARED", "/shared"), "banner")
	if err := write(banner, fmt.Sprintf("%s to %s, open since %s\n", greeting, serve.Pod(), time.Now().UTC().Format(time.TimeOnly))); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	serve.Main(serve.Env("LISTEN", "localhost:9090"), handler(greeting))
}

// write replaces the file whole: the other container may be reading it.
func write(path, text string) error {
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func handler(greeting string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /greeting", func(w http.ResponseWriter, _ *http.Request) {
		serve.JSON(w, map[string]string{"greeting": greeting})
	})
	return mux
}

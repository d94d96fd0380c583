// Command app is what the pods of the measurements run: "app serve" answers on :8080, "app ask URL" asks until the first
// good answer and prints when it came, in nanoseconds since 1970, and "app wait" does nothing. All end with SIGTERM.
package main

import (
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, os.Interrupt)
	switch {
	case len(os.Args) > 1 && os.Args[1] == "serve":
		go func() {
			fmt.Println(http.ListenAndServe(":8080", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })))
			os.Exit(1)
		}()
	case len(os.Args) > 2 && os.Args[1] == "ask":
		go ask(os.Args[2])
	}
	<-stop
}

func ask(url string) {
	// A connection per question: the name is looked up each time, and no earlier failure is remembered.
	c := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		resp, err := c.Get(url)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				fmt.Println(time.Now().UnixNano())
				return
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
}

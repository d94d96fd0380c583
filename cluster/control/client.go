package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// Client asks the process behind a control socket. Safe for concurrent use.
type Client struct{ http *http.Client }

// Dial returns a client of the socket at path. It connects when first asked.
func Dial(path string) *Client {
	return &Client{http: &http.Client{Transport: &http.Transport{DisableCompression: true, DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}}}}
}

// Load sends a tarball of images and returns the names it brought.
func (c *Client) Load(ctx context.Context, r io.Reader) ([]string, error) {
	var names []string
	return names, c.ask(ctx, http.MethodPost, "/images", "", io.NopCloser(r), &names)
}

// List returns the images of the node.
func (c *Client) List(ctx context.Context) ([]Image, error) {
	var out []Image
	return out, c.ask(ctx, http.MethodGet, "/images", "", nil, &out)
}

// Remove removes an image by name or ID.
func (c *Client) Remove(ctx context.Context, name string) error {
	return c.ask(ctx, http.MethodDelete, "/images", name, nil, nil)
}

// Pull has the node fetch an image and returns its full name.
func (c *Client) Pull(ctx context.Context, name string) (string, error) {
	var names []string
	if err := c.ask(ctx, http.MethodPost, "/images/pull", name, nil, &names); err != nil {
		return "", err
	}
	if len(names) != 1 {
		return "", errors.New("the node did not say what it pulled")
	}
	return names[0], nil
}

// Components returns how the parts of the process are.
func (c *Client) Components(ctx context.Context) ([]Component, error) {
	var out []Component
	return out, c.ask(ctx, http.MethodGet, "/components", "", nil, &out)
}

func (c *Client) ask(ctx context.Context, method, path, ref string, body io.Reader, out any) error {
	u := url.URL{Scheme: "http", Host: "karve", Path: path}
	if ref != "" {
		u.RawQuery = url.Values{"ref": {ref}}.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			return fmt.Errorf("reach the node: %w", op.Err)
		}
		return fmt.Errorf("reach the node: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		return errors.New(strings.TrimSpace(string(text)))
	}
	if out == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("read the node's answer: %w", err)
	}
	return nil
}

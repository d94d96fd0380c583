package image

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// openLayer opens a downloaded layer uncompressed. Reading to its end fails if its digest is not the one that the image's
// configuration promises, which is what the layer will be known by.
func openLayer(path, diffID string) (io.ReadCloser, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	r, err := decompress(bufio.NewReaderSize(f, 64<<10))
	if err != nil {
		f.Close()
		return nil, err
	}
	return &checked{r: r, file: f, sum: sha256.New(), want: strings.TrimPrefix(diffID, "sha256:")}, nil
}

// decompress goes by the first bytes: registries do not always say what they send.
func decompress(b *bufio.Reader) (io.ReadCloser, error) {
	magic, _ := b.Peek(4)
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		return gzip.NewReader(b)
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		d, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	}
	return io.NopCloser(b), nil
}

// checked compares the digest of what was read at the end.
type checked struct {
	r    io.ReadCloser
	file *os.File
	sum  hash.Hash
	want string
}

func (c *checked) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.sum.Write(p[:n])
	if err == io.EOF {
		if got := hex.EncodeToString(c.sum.Sum(nil)); got != c.want {
			return n, fmt.Errorf("layer content is sha256:%s, not sha256:%s as promised", got, c.want)
		}
	}
	return n, err
}

func (c *checked) Close() error {
	c.r.Close()
	return c.file.Close()
}

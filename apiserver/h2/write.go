package h2

import (
	"encoding/binary"
	"time"

	"golang.org/x/net/http2"
)

// Frames are written as bytes: a handler appends them to the connection's buffer under its lock, which is all the order
// they need.

func appendHead(out []byte, size int, kind http2.FrameType, flags http2.Flags, id uint32) []byte {
	out = append(out, byte(size>>16), byte(size>>8), byte(size), byte(kind), byte(flags))
	return binary.BigEndian.AppendUint32(out, id)
}

func appendSettings(out []byte, settings ...http2.Setting) []byte {
	out = appendHead(out, 6*len(settings), http2.FrameSettings, 0, 0)
	for _, s := range settings {
		out = binary.BigEndian.AppendUint16(out, uint16(s.ID))
		out = binary.BigEndian.AppendUint32(out, s.Val)
	}
	return out
}

func appendSettingsAck(out []byte) []byte {
	return appendHead(out, 0, http2.FrameSettings, http2.FlagSettingsAck, 0)
}

func appendPingAck(out []byte, data [8]byte) []byte {
	return append(appendHead(out, 8, http2.FramePing, http2.FlagPingAck, 0), data[:]...)
}

func appendWindowUpdate(out []byte, id, n uint32) []byte {
	return binary.BigEndian.AppendUint32(appendHead(out, 4, http2.FrameWindowUpdate, 0, id), n)
}

func appendReset(out []byte, id uint32, code http2.ErrCode) []byte {
	return binary.BigEndian.AppendUint32(appendHead(out, 4, http2.FrameRSTStream, 0, id), uint32(code))
}

func appendGoAway(out []byte, last uint32, code http2.ErrCode) []byte {
	out = binary.BigEndian.AppendUint32(appendHead(out, 8, http2.FrameGoAway, 0, 0), last)
	return binary.BigEndian.AppendUint32(out, uint32(code))
}

// appendHeaders appends a header block, in as many frames as the peer's limit makes of it.
func appendHeaders(out []byte, id uint32, block []byte, limit int, end bool) []byte {
	kind := http2.FrameHeaders
	for first := true; first || len(block) > 0; first = false {
		part := block[:min(len(block), limit)]
		block = block[len(part):]
		var flags http2.Flags
		if first && end {
			flags |= http2.FlagHeadersEndStream
		}
		if len(block) == 0 {
			flags |= http2.FlagHeadersEndHeaders
		}
		out = append(appendHead(out, len(part), kind, flags, id), part...)
		kind = http2.FrameContinuation
	}
	return out
}

func appendData(out []byte, id uint32, data []byte, end bool) []byte {
	var flags http2.Flags
	if end {
		flags = http2.FlagDataEndStream
	}
	return append(appendHead(out, len(data), http2.FrameData, flags, id), data...)
}

// signal wakes the writer.
func (c *conn) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// atOnce is how much is handed to TLS at a time, which makes records of up to 16 KiB.
const atOnce = 64 << 10

// writeLoop sends what is in out until the connection has failed and nothing is left.
func (c *conn) writeLoop() {
	var spare []byte
	for range c.wake {
		for {
			c.mu.Lock()
			b, failed := c.out, c.failed
			if len(b) == 0 {
				c.mu.Unlock()
				if failed != nil {
					return
				}
				break
			}
			c.out = spare[:0]
			c.room.Broadcast()
			c.mu.Unlock()
			if err := c.send(b, failed != nil); err != nil {
				c.mu.Lock()
				c.out = nil
				c.mu.Unlock()
				c.fail(err)
				_ = c.nc.NetConn().Close() // the reader may wait for a client that is gone
				return
			}
			if spare = b; cap(b) > maxQueued { // after a large answer
				spare = nil
			}
		}
		if cap(spare) > 16<<10 { // idle connections keep little
			spare = nil
		}
	}
}

func (c *conn) send(b []byte, last bool) error {
	limit := writeTimeout
	if last {
		limit = lastWords
	}
	for len(b) > 0 {
		part := b[:min(len(b), atOnce)]
		_ = c.nc.SetWriteDeadline(time.Now().Add(limit))
		if _, err := c.nc.Write(part); err != nil {
			return err
		}
		b = b[len(part):]
	}
	return nil
}

// goAway tells the client to open no more streams. The connection ends with the last of those it has.
func (c *conn) goAway() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leaving || c.failed != nil {
		return
	}
	c.leaving = true
	c.out = appendGoAway(c.out, c.last, http2.ErrCodeNo)
	c.signal()
	c.rest()
}

// rest is called, with mu held, when a stream has ended: a connection without any is closed after a while, or at once
// when it is to go.
func (c *conn) rest() {
	if len(c.streams) > 0 {
		return
	}
	wait := c.timeout
	if c.leaving {
		wait = 100 * time.Millisecond // for the client to read that
	} else if wait <= 0 {
		return
	}
	if c.idle != nil {
		c.idle.Reset(wait)
		return
	}
	c.idle = time.AfterFunc(wait, func() {
		c.mu.Lock()
		busy := len(c.streams) > 0
		leaving := c.leaving
		c.mu.Unlock()
		switch {
		case busy:
		case leaving:
			_ = c.nc.SetReadDeadline(time.Now()) // ends the reader, and with it the connection
		default:
			c.goAway()
		}
	})
}

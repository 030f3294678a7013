package fcapi

import (
	"bytes"
	"io"
	"net"
	"testing"
)

// The floor is what any client must do: write the bytes of a request, read the
// bytes of its answer.
func BenchmarkCall(b *testing.B) {
	const pause = "PATCH /vm HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\nContent-Type: application/json\r\nContent-Length: 18\r\n\r\n{\"state\":\"Paused\"}"
	serve := func(b *testing.B) *fake {
		f := newFake(b, nil)
		f.stop()
		return newRaw(b, f.socket, func(_ *fake, nc net.Conn, _ int) {
			buf := make([]byte, 4096)
			for {
				n, err := nc.Read(buf)
				if err != nil {
					return
				}
				if !bytes.HasSuffix(buf[:n], []byte("}")) {
					b.Errorf("request came in parts: %q", buf[:n])
					return
				}
				if _, err := io.WriteString(nc, noContent); err != nil {
					return
				}
			}
		})
	}
	b.Run("floor", func(b *testing.B) {
		nc, err := net.Dial("unix", serve(b).socket)
		if err != nil {
			b.Fatal(err)
		}
		defer nc.Close()
		buf := make([]byte, 4096)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := io.WriteString(nc, pause); err != nil {
				b.Fatal(err)
			}
			if n, err := nc.Read(buf); err != nil || n != len(noContent) {
				b.Fatal(n, err)
			}
		}
	})
	b.Run("client", func(b *testing.B) {
		c := newClient(b, serve(b))
		b.ReportAllocs()
		for b.Loop() {
			if err := c.Pause(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
}

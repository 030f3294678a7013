//go:build linux

package qemuengine

import (
	"context"
	"errors"
	"os"

	"github.com/tangle-network/microvm/fcemu"
)

type vsock struct{}

func (s *vsock) connection(ctx context.Context) (*os.File, error) { return nil, errors.New("x") }

func (e *Engine) attachVsock(ctx context.Context, v *fcemu.Vsock) error { return refuse("vsock") }
func (e *Engine) unplugVsock(ctx context.Context) error                 { return nil }
func (e *Engine) plugVsock(ctx context.Context) error                   { return nil }
func (e *Engine) vsockPlugged() bool                                    { return false }
func (e *Engine) resetVsock()                                           {}
func (e *Engine) closeVsock()                                           {}

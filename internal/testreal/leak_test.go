//go:build linux

package main

import (
	"os"
	"testing"

	"github.com/tangle-network/microvm/internal/leaktest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

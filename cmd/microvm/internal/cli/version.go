package cli

import (
	"fmt"
	goruntime "runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// build is what the version command prints.
type build struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func thisBuild() build {
	b := build{Version: "unknown", Go: goruntime.Version(), Platform: goruntime.GOOS + "/" + goruntime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	b.Version = info.Main.Version
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Say which microvm this is",
		Long:  `Say which microvm this is. "microvm doctor" tells the versions of the VMMs.`,
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			b := thisBuild()
			if a.flags.json {
				return a.printJSON(b)
			}
			parts := []string{"microvm", b.Version}
			if b.Revision != "" {
				parts = append(parts, b.Revision[:min(12, len(b.Revision))])
			}
			if b.Modified {
				parts = append(parts, "(modified)")
			}
			_, err := fmt.Fprintln(a.out, strings.Join(append(parts, b.Go, b.Platform), " "))
			return err
		},
	}
}

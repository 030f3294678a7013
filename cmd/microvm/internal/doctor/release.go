package doctor

import (
	"github.com/tangle-network/microvm/fcapi"
)

// Defect is a known fault of the VMM's release.
type Defect struct {
	ID      string `json:"id"`
	Summary string `json:"summary"`
	// MendedIn are the releases that are free of it, oldest first; empty when
	// none is yet.
	MendedIn []string `json:"mended_in,omitempty"`
}

// Lack is something of the API that came after the VMM's release.
type Lack struct {
	What string `json:"what"`
	// Since are the releases that have it: the last one and all newer ones,
	// those before it in their own line.
	Since []string `json:"since"`
}

// describe puts what is known of the release into v. An emulator has the API of
// its release, but not its defects.
func (v *VMM) describe() {
	release, err := fcapi.ParseVersion(v.Version)
	if err != nil {
		return // it is shown as the VMM writes it; nothing is known of it
	}
	if !v.Emulator {
		for _, d := range fcapi.KnownDefects(release) {
			v.Defects = append(v.Defects, Defect{string(d.ID), d.Summary, texts(d.FixedIn)})
		}
	}
	for _, l := range fcapi.Lacks(release) {
		v.Lacks = append(v.Lacks, Lack{l.What, texts(l.Since)})
	}
}

func texts(all []fcapi.Version) []string {
	var out []string
	for _, v := range all {
		out = append(out, v.String())
	}
	return out
}

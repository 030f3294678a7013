package tinyguest

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestTheImageIsAnELFThatLoadsItsCode(t *testing.T) {
	f, err := elf.NewFile(bytes.NewReader(ELF()))
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Progs) != 1 || f.Entry != loadAddr || f.Machine != elf.EM_X86_64 {
		t.Fatalf("%+v", f)
	}
	got := make([]byte, f.Progs[0].Filesz)
	if _, err := f.Progs[0].ReadAt(got, 0); err != nil || !bytes.Equal(got, code) {
		t.Fatalf("segment holds %x: %v", got, err)
	}
}

func TestTheCodeIsWhatTheSourceSays(t *testing.T) {
	for _, tool := range []string{"as", "objcopy"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("assemble guest.s: %v (apt install binutils)", err)
		}
	}
	obj, bin := filepath.Join(t.TempDir(), "o"), filepath.Join(t.TempDir(), "bin")
	if out, err := exec.Command("as", "--64", "-o", obj, "guest.s.txt").CombinedOutput(); err != nil {
		t.Skipf("this assembler does not know x86-64: %s", out)
	}
	if out, err := exec.Command("objcopy", "-O", "binary", "-j", ".text", obj, bin).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, code) {
		t.Fatalf("guest.s assembles to %x", got)
	}
}

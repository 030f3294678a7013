package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/cmd/microvm/internal/doctor"
	"github.com/tangle-network/microvm/firecracker"
)

const (
	emulatorName = "fcemu"
	engineAuto   = "auto"
	// engineVariable tells fcemu its engine.
	engineVariable = "FCEMU_ENGINE"
	// emulatorVariable asks for fcemu; its value is an engine, or a switch.
	emulatorVariable = "MICROVM_EMULATOR"
	// emulatorMark is a file in a guest's folder that asks for fcemu where KVM
	// can't boot Linux: "make demo" leaves it there when it has run in fcemu.
	emulatorMark = "emulator"
)

// vmmChoice is the VMM that commands use, and who asked for it.
type vmmChoice struct {
	path   string // empty: there is none, or Firecracker by its name
	engine string // of fcemu, when it was asked for
	asked  string // who asked for fcemu: a flag, a variable, a file
}

// parseEngine reads the value of --emulator or MICROVM_EMULATOR; "" means that no
// emulator is asked for.
func parseEngine(name, value string) (string, error) {
	switch value {
	case "", "0", "false":
		return "", nil
	case "1", "true":
		return engineAuto, nil
	case engineAuto, "qemu", "null":
		return value, nil
	}
	return "", fmt.Errorf("%s %q: one of auto, qemu, null", name, value)
}

// chooseVMM settles which VMM is used and puts it into c. An emulator is used
// only when somebody asked for it: nobody may take it for Firecracker.
func (a *app) chooseVMM(c *firecracker.Config) (vmmChoice, error) {
	byEnv, err := parseEngine(emulatorVariable, os.Getenv(emulatorVariable))
	if err != nil {
		return vmmChoice{}, fmt.Errorf("environment: %w", err)
	}
	var choice vmmChoice
	switch flag := a.flags.emulator; {
	case flag != "":
		engine, err := parseEngine("--emulator", flag)
		if err != nil {
			return choice, err
		}
		choice = vmmChoice{engine: engine, asked: "--emulator"}
	case a.flags.vmm != "":
		choice.path = a.flags.vmm
	case c.Binary != "" && byEnv != "":
		return choice, errors.New("environment: MICROVM_FIRECRACKER_BIN and " + emulatorVariable + ": one of them")
	case c.Binary != "":
		choice.path = c.Binary
	case byEnv != "":
		choice = vmmChoice{engine: byEnv, asked: emulatorVariable}
	default:
		choice = choiceByGuest(guestDirs(c.StateDir))
	}
	if choice.engine != "" {
		path, ok := findProgram(emulatorName)
		if !ok {
			return choice, &microvm.Error{
				Verb: "choose the VMM of", Err: fmt.Errorf("%s asks for %s, which is neither beside this program nor on PATH: %w", choice.asked, emulatorName, microvm.ErrHost),
				Remedy: `"make build" in a checkout makes it`,
			}
		}
		choice.path = path
		c.Env = setVariable(c.Env, engineVariable, choice.engine)
		if path, helper := os.Getenv("PATH"), vsockHelper(c.StateDir); path != "" && helper != "" {
			c.Env = setVariable(c.Env, "PATH", path+string(os.PathListSeparator)+filepath.Dir(helper))
		}
	} else if choice.path == "" {
		choice.path, _ = findProgram("firecracker")
	}
	c.Binary = choice.path
	return choice, nil
}

// choiceByGuest is fcemu where the installed guest's folder asks for it and KVM
// can't boot Linux.
func choiceByGuest(dirs []string) vmmChoice {
	guest, ok := doctor.FindGuest(dirs)
	if !ok {
		return vmmChoice{}
	}
	mark := filepath.Join(filepath.Dir(guest.Kernel), emulatorMark)
	if _, err := os.Stat(mark); err != nil || doctor.ProbeKVM().BootsLinux() {
		return vmmChoice{}
	}
	return vmmChoice{engine: engineAuto, asked: mark}
}

func setVariable(env []string, name, value string) []string {
	env = slices.DeleteFunc(slices.Clone(env), func(e string) bool { return strings.HasPrefix(e, name+"=") })
	return append(env, name+"="+value)
}

// vsockHelper is the vhost-device-vsock that "make guest" has put with the guest;
// empty when there is none.
func vsockHelper(stateDir string) string {
	for _, dir := range guestDirs(stateDir) {
		path, err := filepath.Abs(filepath.Join(dir, "vhost-device-vsock"))
		if err != nil {
			continue
		}
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}

// isEmulator says whether the VM's VMM is fcemu, which says so in its version.
func isEmulator(v microvm.View) bool {
	return strings.Contains(v.VMM, emulatorName) || strings.Contains(v.VMMVersion, emulatorName)
}

// sayEmulator tells, once, that guests run in an emulator, whatever it was
// called on the command line: the process itself says what it is.
func (a *app) sayEmulator(v microvm.View) {
	if !isEmulator(v) {
		return
	}
	a.emulatorSaid.Do(func() {
		by := ""
		if a.vmm.asked != "" {
			by = ", as " + a.vmm.asked + " asks for"
		}
		a.warn("VM %q runs in %s %s, an EMULATOR of Firecracker%s", v.ID, v.VMM, v.VMMVersion, by)
	})
}

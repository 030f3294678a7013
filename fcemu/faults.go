package fcemu

import (
	"errors"
	"io/fs"
	"strconv"
	"strings"
	"syscall"
)

// fault is an answer other than success.
type fault struct {
	status int
	msg    string
}

func (f *fault) Error() string { return f.msg }

func refuse(msg string) *fault { return &fault{400, msg} }

// engineFault turns an engine's refusal into an answer, in the section's
// words.
func engineFault(prefix string, err error) *fault {
	return refuse(prefix + ": " + osText(err))
}

// osText ends in the way in which the original writes errors of the system,
// when err is one.
func osText(err error) string {
	var path *fs.PathError
	if errors.As(err, &path) && strings.ContainsRune(path.Path, 0) {
		return "a path with a zero byte in it: " + strconv.Quote(path.Path)
	}
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return err.Error()
	}
	text := errno.Error()
	head := strings.TrimSuffix(err.Error(), text)
	return head + strings.ToUpper(text[:1]) + text[1:] + " (os error " + strconv.Itoa(int(errno)) + ")"
}

var (
	errPreBoot  = refuse("The requested operation is not supported before starting the microVM.")
	errPostBoot = refuse("The requested operation is not supported after starting the microVM.")
	errNoPCI    = refuse("PCI is not enabled")
	errIDInUse  = refuse("Device ID in use")
	errNoDevice = refuse("Device not found")
)

package vmm

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ExitStatus is how a process ended.
type ExitStatus struct {
	Code   int            // exit code, 0 to 255, if Signal is 0
	Signal syscall.Signal // the signal that ended it, or 0
}

// String is "exit code 1" or "SIGKILL".
func (s ExitStatus) String() string {
	if s.Signal != 0 {
		return signalName(s.Signal)
	}
	return fmt.Sprintf("exit code %d", s.Code)
}

// siginfoChild is siginfo_t of 64-bit Linux as waitid(2) fills it in.
type siginfoChild struct {
	signo, errno, code, _ int32
	pid                   int32
	uid                   uint32
	status                int32
	_                     [100]byte
}

// reap collects a dead child of this program. It is false when the process is
// not one, is not dead, or was collected by somebody else (a program that waits
// for all its children, or ignores SIGCHLD).
func reap(pidfd int) (ExitStatus, bool) {
	info, ok := waitChild(pidfd, unix.WEXITED|unix.WNOHANG)
	if !ok {
		return ExitStatus{}, false
	}
	const exitedCode = 1 // CLD_EXITED
	if info.code == exitedCode {
		return ExitStatus{Code: int(info.status)}, true
	}
	return ExitStatus{Signal: syscall.Signal(info.status)}, true
}

func waitChild(pidfd, options int) (siginfoChild, bool) {
	for {
		var info siginfoChild
		err := unix.Waitid(unix.P_PIDFD, pidfd, (*unix.Siginfo)(unsafe.Pointer(&info)), options, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return info, err == nil && info.pid != 0
	}
}

// pidfdInfo is struct pidfd_info of Linux 6.15 (include/uapi/linux/pidfd.h).
type pidfdInfo struct {
	mask     uint64
	cgroupID uint64
	ids      [11]uint32
	exitCode int32
	_        [24]byte
}

func getInfo(pidfd int) (pidfdInfo, bool) {
	info := pidfdInfo{mask: unix.PIDFD_INFO_EXIT}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(pidfd), unix.PIDFD_GET_INFO, uintptr(unsafe.Pointer(&info)))
	return info, errno == 0
}

// exitInfo asks for the exit status of any process that its parent has reaped.
func exitInfo(pidfd int) (ExitStatus, bool) {
	info, ok := getInfo(pidfd)
	if !ok || info.mask&unix.PIDFD_INFO_EXIT == 0 {
		return ExitStatus{}, false
	}
	ws := syscall.WaitStatus(info.exitCode)
	if ws.Signaled() {
		return ExitStatus{Signal: ws.Signal()}, true
	}
	return ExitStatus{Code: ws.ExitStatus()}, true
}

func hasExitInfo(pidfd int) bool {
	_, ok := getInfo(pidfd)
	return ok
}

// killGroup sends SIGKILL to the process group that the process leads, if it
// leads one. By pidfd (Linux 6.9) that can't hit a stranger. On older kernels the
// number of the group is certain only while its leader is unreaped: alive, or a
// dead child of this program, which nobody else collects.
func killGroup(pidfd, pid int) {
	err := unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, unix.PIDFD_SIGNAL_PROCESS_GROUP)
	if !errors.Is(err, unix.EINVAL) {
		return
	}
	_, zombieChild := waitChild(pidfd, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT)
	if zombieChild || !exited(pidfd) {
		_ = unix.Kill(-pid, unix.SIGKILL)
	}
}

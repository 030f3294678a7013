package qemuengine

import "strings"

// defaultBootArgs is what Firecracker uses when PUT /boot-source has no
// boot_args (vmm_config/boot_source.rs). It forbids modules and the serial
// port, there as here.
const defaultBootArgs = "reboot=k panic=1 nomodule 8250.nr_uarts=0 i8042.noaux i8042.nomux i8042.dumbkbd swiotlb=noforce"

// rootDrive is what the kernel command line says of the root drive.
type rootDrive struct {
	partUUID string
	readOnly bool
}

// bootArgs makes the kernel's command line as Firecracker does: the user's
// arguments, then ours, before a free-standing "--", whose tail belongs to
// init. A nil args means the default ones. What differs from Firecracker: its
// own pci=off and virtio_mmio.device= are not added, and a pci=off of the
// user's is left out, because here the devices are on PCI. Under TCG the kernel
// is told not to test the timer, as it is under KVM by KVM itself: on a busy
// host an emulated CPU may be too late for that test, which is a panic.
func bootArgs(args *string, root *rootDrive, accel string) string {
	line := defaultBootArgs
	if args != nil {
		line = *args
	}
	head, tail, hasTail := cutInitArgs(line)
	head = dropWord(head, "pci=off")
	add := func(s string) {
		if head = strings.TrimRight(head, " "); head != "" {
			head += " "
		}
		head += s
	}
	if accel == "tcg" {
		add("no_timer_check")
	}
	if root != nil {
		if root.partUUID != "" {
			add("root=PARTUUID=" + root.partUUID)
		} else {
			add("root=/dev/vda")
		}
		if root.readOnly {
			add("ro")
		} else {
			add("rw")
		}
	}
	if hasTail {
		add("--" + tail)
	}
	return head
}

// cutInitArgs splits at the first "--" that stands alone; tail begins with
// what follows it, blanks included.
func cutInitArgs(line string) (head, tail string, found bool) {
	for at := 0; ; {
		i := strings.Index(line[at:], "--")
		if i < 0 {
			return line, "", false
		}
		i += at
		end := i + 2
		if (i == 0 || line[i-1] == ' ') && (end == len(line) || line[end] == ' ') {
			return line[:i], line[end:], true
		}
		at = end
	}
}

// dropWord removes a word that stands alone and one blank with it, and leaves
// every other byte as it is.
func dropWord(line, word string) string {
	for at := 0; ; {
		i := strings.Index(line[at:], word)
		if i < 0 {
			return line
		}
		i += at
		end := i + len(word)
		if (i > 0 && line[i-1] != ' ') || (end < len(line) && line[end] != ' ') {
			at = end
			continue
		}
		switch {
		case end < len(line):
			end++
		case i > 0:
			i--
		}
		line = line[:i] + line[end:]
		at = i
	}
}

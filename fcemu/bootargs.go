package fcemu

import "strings"

// DefaultBootArgs is what a guest gets whose boot_args were left out.
const DefaultBootArgs = "reboot=k panic=1 nomodule 8250.nr_uarts=0 i8042.noaux i8042.nomux i8042.dumbkbd swiotlb=noforce"

// maxCommandLine is the room for the kernel's command line, with its final
// zero byte.
const maxCommandLine = 2048

// SplitBootArgs separates the kernel's arguments from those that belong to
// init: the part behind the first " -- " that is not inside double quotes.
func SplitBootArgs(s string) (kernel, init string) {
	for at := 0; ; {
		i := strings.Index(s[at:], " -- ")
		if i < 0 {
			return strings.TrimSpace(s), ""
		}
		at += i
		if strings.Count(s[:at], `"`)%2 == 0 {
			return strings.TrimSpace(s[:at]), strings.TrimSpace(s[at+4:])
		}
		at++
	}
}

func checkBootArgs(s string) *fault {
	kernel, init := SplitBootArgs(s)
	size := len(kernel) + 1
	if init != "" {
		size += len(" -- ") + len(init)
	}
	if size > maxCommandLine {
		return refuse("Boot source error: The kernel command line is invalid: it is longer than 2047 bytes.")
	}
	return nil
}

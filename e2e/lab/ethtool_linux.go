package lab

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// ethtool sets a network card's flag to off, as "ethtool -K" does; a card without it does not mind.
func ethtool(fd int, name string, command uint32) {
	value := struct{ command, data uint32 }{command, 0}
	var request struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte // a union's rest
	}
	copy(request.name[:], name)
	request.data = unsafe.Pointer(&value)
	unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
}

package api

import (
	"encoding/binary"
	"encoding/hex"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// foreignUser reports whether the other end of a connection from this machine belongs to another user of it, who has
// no business at this user's door. The system's administrator may come in; so may whom the kernel's tables do not show.
func foreignUser(c net.Conn) bool {
	client, server := addrPort(c.RemoteAddr()), addrPort(c.LocalAddr())
	if !client.Addr().IsLoopback() {
		return false
	}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} { // a socket for both may hold an IPv4 connection
		raw, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(raw)) {
			f := strings.Fields(line)
			if len(f) < 8 || tableAddr(f[1]) != client || tableAddr(f[2]) != server {
				continue
			}
			uid, err := strconv.Atoi(f[7])
			return err == nil && uid != 0 && uid != os.Getuid()
		}
	}
	return false
}

func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := t.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// tableAddr reads an address of proc_net_tcp(5): words of 32 bits in the machine's byte order, as hex, then the port.
func tableAddr(s string) netip.AddrPort {
	addr, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(addr)
	if err != nil || len(b)%4 != 0 {
		return netip.AddrPort{}
	}
	for i := 0; i < len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	ip, ok := netip.AddrFromSlice(b)
	n, err := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(n))
}

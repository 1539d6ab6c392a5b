package lab

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// runHost brings up the network of one host, and is the prober where it is told to be.
func runHost() error {
	in := bufio.NewScanner(os.Stdin)
	if !in.Scan() {
		return io.ErrUnexpectedEOF
	}
	addr, resolver, _ := strings.Cut(in.Text(), " ")
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	eth, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	quiet("eth0")
	ip := net.ParseIP(addr)
	subnet := &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: net.CIDRMask(24, 32)}}
	_, all, _ := net.ParseCIDR("0.0.0.0/0")
	_, groups, _ := net.ParseCIDR("224.0.0.0/4")
	gateway := ip.Mask(net.CIDRMask(24, 32)).To4()
	gateway[3] = 254
	os.WriteFile("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", []byte("1"), 0)
	for _, step := range []func() error{
		func() error { return netlink.LinkSetUp(lo) },
		func() error { return netlink.LinkSetUp(eth) },
		func() error { return netlink.AddrAdd(eth, subnet) },
		func() error {
			return netlink.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Dst: all, Gw: gateway})
		},
		func() error { return netlink.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Dst: groups}) },
		func() error { return askThere(resolver) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	fmt.Println("ready")
	for in.Scan() {
		server := strings.TrimSpace(in.Text())
		go func() {
			if speaksLibp2p(server) {
				fmt.Println(server)
			}
		}()
	}
	return nil
}

// askThere has this host's programs ask a resolver, by another /etc/resolv.conf in front of the machine's.
func askThere(resolver string) error {
	if resolver == "" {
		return nil
	}
	f, err := os.CreateTemp("", "lab-resolv-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // the mount holds it
	_, err = fmt.Fprintf(f, "nameserver %s\noptions timeout:2 attempts:1\n", resolver)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("a mount namespace of its own: %w", err)
	}
	if err := unix.Mount(f.Name(), "/etc/resolv.conf", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("name a resolver: %w", err)
	}
	return nil
}

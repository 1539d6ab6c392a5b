package lab

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// setup is what the middle is told on its standard input; then come orders, a line each.
type setup struct {
	World World
	Pcap  string
}

type order struct {
	Censor []Rule `json:",omitempty"`
	Flows  bool   `json:",omitempty"`
}

// gatewayMAC is the middle's on every link.
var gatewayMAC = [6]byte{2, 0, 0, 0, 0, 1}

// port is one host's cable.
type port struct {
	host  Host
	link  *linkState
	addr  netip.Addr
	mac   [6]byte
	fd    int
	stdin io.Writer // of the host's process
}

type linkState struct {
	Link
	prober bool                  // the censor's own, which it does not look at
	inside map[flowKey]time.Time // flows begun behind the firewall, until when; of the client's side
	busy   [2]time.Time          // the line is taken until then, out and in
}

// middle is every switch, router and censor.
type middle struct {
	mu     sync.Mutex // guards everything below
	ports  []*port
	byAddr map[netip.Addr]*port
	censor *censor
	all    []Rule
	queue  queue
	wake   chan struct{}
	pcap   *bufio.Writer
	room   int
}

func runMiddle() error {
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	var s setup
	if err := readLine(in, &s); err != nil {
		return err
	}
	m := &middle{byAddr: map[netip.Addr]*port{}, censor: newCensor(time.Now), wake: make(chan struct{}, 1), room: 64 << 20}
	if s.Pcap != "" {
		f, err := os.Create(s.Pcap)
		if err != nil {
			return err
		}
		m.pcap = bufio.NewWriter(f)
		head := make([]byte, 24)
		for i, v := range []uint32{0xa1b2c3d4, 2 | 4<<16, 0, 0, 65535, 101} { // LINKTYPE_RAW
			binary.LittleEndian.PutUint32(head[4*i:], v)
		}
		m.pcap.Write(head)
	}
	pids, err := m.build(s.World)
	if err != nil {
		return err
	}
	m.setRules(s.World.Censor)
	for _, p := range m.ports {
		go m.listen(p)
	}
	go m.deliver()
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(pids); err != nil {
		return err
	}
	for {
		var o order
		if err := readLine(in, &o); err != nil {
			return nil // the test is over
		}
		m.obey(o, out)
	}
}

func readLine(in *bufio.Reader, v any) error {
	line, err := in.ReadBytes('\n')
	if err != nil {
		return err
	}
	return json.Unmarshal(line, v)
}

func (m *middle) obey(o order, out *json.Encoder) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !o.Flows {
		m.setRules(o.Censor)
		out.Encode(true)
		return
	}
	flows := []Flow{}
	for _, f := range m.censor.log {
		flows = append(flows, f.Flow)
	}
	if m.pcap != nil {
		m.pcap.Flush()
	}
	out.Encode(flows)
}

func (m *middle) setRules(rules []Rule) {
	m.all = nil
	var mine []Rule
	for _, r := range rules {
		if r.Kind == cutAll {
			m.all = append(m.all, r)
		} else {
			mine = append(mine, r)
		}
	}
	m.censor.set(mine)
}

// build makes a namespace, a cable and an address for every host, and returns the hosts' processes.
func (m *middle) build(w World) ([]int, error) {
	links := map[string]*linkState{}
	for _, l := range w.Links {
		links[l.Name] = &linkState{Link: l, inside: map[flowKey]time.Time{}}
	}
	links[""] = &linkState{prober: true, inside: map[flowKey]time.Time{}}
	hosts := append(w.Hosts, Host{Addr: "10.255.255.1"}) // the prober, on a link of its own
	var pids []int
	for i, h := range hosts {
		l := links[h.Link]
		if l == nil {
			return nil, fmt.Errorf("host %s: there is no link %q", h.Name, h.Link)
		}
		addr, err := netip.ParseAddr(h.Addr)
		if err != nil {
			return nil, fmt.Errorf("host %s: %w", h.Name, err)
		}
		p := &port{host: h, link: l, addr: addr, mac: [6]byte{2, 0, 0, 1, byte(i >> 8), byte(i)}}
		pid, err := m.plug(p, i)
		if err != nil {
			return nil, fmt.Errorf("host %s: %w", h.Name, err)
		}
		m.ports, pids = append(m.ports, p), append(pids, pid)
		m.byAddr[addr] = p
	}
	prober := m.ports[len(m.ports)-1]
	m.censor.visit = func(server netip.AddrPort) { fmt.Fprintln(prober.stdin, server) }
	return pids, nil
}

// plug starts a host's process and connects it.
func (m *middle) plug(p *port, i int) (int, error) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleEnv+"=host")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	name := fmt.Sprintf("h%d", i)
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, MTU: 1500}, PeerName: "eth0", PeerHardwareAddr: p.mac[:],
		PeerNamespace: netlink.NsPid(cmd.Process.Pid)}
	if err := netlink.LinkAdd(veth); err != nil {
		return 0, fmt.Errorf("make a cable: %w", err)
	}
	own, err := netlink.LinkByName(name)
	if err != nil {
		return 0, err
	}
	quiet(name)
	if err := netlink.LinkSetUp(own); err != nil {
		return 0, err
	}
	if p.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, int(htons(unix.ETH_P_ALL))); err != nil {
		return 0, fmt.Errorf("listen to a cable: %w", err)
	}
	if err := unix.Bind(p.fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: own.Attrs().Index}); err != nil {
		return 0, err
	}
	unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
	p.stdin = in
	fmt.Fprintf(in, "%s %s\n", p.addr, p.host.DNS)
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "ready" {
		return 0, fmt.Errorf("it did not come up: %s", lines.Text())
	}
	go func() { // the prober's findings
		for lines.Scan() {
			if server, err := netip.ParseAddrPort(lines.Text()); err == nil {
				m.mu.Lock()
				m.censor.banned[server] = "libp2p"
				m.mu.Unlock()
			}
		}
	}()
	return cmd.Process.Pid, nil
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// quiet turns off what makes frames bigger than the wire, or leaves their checksums for hardware that is not there.
func quiet(name string) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	const stxcsum, ssg, stso, sgso, sgro = 0x17, 0x19, 0x1f, 0x24, 0x2c
	for _, command := range []uint32{stxcsum, ssg, stso, sgso, sgro} {
		ethtool(fd, name, command)
	}
}

func (m *middle) listen(p *port) {
	buf := make([]byte, 65536)
	for {
		n, from, err := unix.Recvfrom(p.fd, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_OUTGOING || n < 14 {
			continue
		}
		m.mu.Lock()
		m.frame(p, buf[:n])
		m.mu.Unlock()
	}
}

// frame takes what a host sent; m.mu is held.
func (m *middle) frame(from *port, frame []byte) {
	kind := binary.BigEndian.Uint16(frame[12:])
	switch {
	case kind == unix.ETH_P_ARP && len(frame) >= 42:
		m.arp(from, frame)
	case frame[0]&1 == 1: // to all, or to a group
		m.censor.overhear(frame)
		for _, p := range m.ports {
			if p != from && p.link == from.link {
				m.send(p, frame, 0)
			}
		}
	case [6]byte(frame[:6]) == gatewayMAC && kind == unix.ETH_P_IP:
		m.route(from, frame)
	default:
		for _, p := range m.ports {
			if p.link == from.link && p.mac == [6]byte(frame[:6]) {
				m.send(p, frame, 0)
			}
		}
	}
}

// arp answers for everybody: a neighbour has its own address, the rest of the world the gateway's.
func (m *middle) arp(from *port, frame []byte) {
	if binary.BigEndian.Uint16(frame[20:]) != 1 {
		return
	}
	asked := netip.AddrFrom4([4]byte(frame[38:42]))
	mac := gatewayMAC
	if p := m.byAddr[asked]; p != nil && p.link == from.link {
		if p == from {
			return
		}
		mac = p.mac
	}
	reply := make([]byte, 42)
	copy(reply, frame[6:12])
	copy(reply[6:], mac[:])
	copy(reply[12:], frame[12:20])
	reply[21] = 2
	copy(reply[22:], mac[:])
	copy(reply[28:], frame[38:42])
	copy(reply[32:], frame[22:32])
	m.send(from, reply, 0)
}

// route moves a packet from link to link.
func (m *middle) route(from *port, frame []byte) {
	p, ok := parsePacket(frame[14:])
	if !ok {
		return
	}
	to := m.byAddr[p.dst.Addr()]
	if to == nil || to.link != from.link && len(m.all) > 0 {
		return
	}
	if to.link == from.link {
		m.forward(to, p.ip, 0)
		return
	}
	delay, lost := from.link.pass(len(p.ip), 0)
	if lost {
		return
	}
	if from.link.Country != to.link.Country && !from.link.prober && !to.link.prober {
		m.record(p.ip)
		v := m.censor.judge(p, from.link.Country != "")
		for _, forged := range v.forged {
			if f, ok := parsePacket(forged); ok && m.byAddr[f.dst.Addr()] != nil {
				m.forward(m.byAddr[f.dst.Addr()], forged, delay)
			}
		}
		if v.drop {
			return
		}
		delay += v.delay
	}
	more, lost := to.link.pass(len(p.ip), 1)
	if lost || !to.link.admits(p, from.link) {
		return
	}
	m.forward(to, p.ip, delay+more)
}

// pass is what a link does to a packet that leaves (0) or enters (1) it.
func (l *linkState) pass(size, way int) (delay time.Duration, lost bool) {
	if l.Loss > 0 && rand.Float64() < l.Loss {
		return 0, true
	}
	delay = l.Latency
	if l.Jitter > 0 {
		delay += rand.N(l.Jitter)
	}
	if l.Rate > 0 {
		now := time.Now()
		if l.busy[way].Before(now) {
			l.busy[way] = now
		}
		if wait := l.busy[way].Sub(now); wait > time.Second {
			return 0, true
		}
		l.busy[way] = l.busy[way].Add(time.Duration(size) * time.Second / time.Duration(l.Rate))
		delay += l.busy[way].Sub(now)
	}
	return delay, false
}

// udpMemory is how long a firewall waits for answers.
const udpMemory = 60 * time.Second

// admits reports whether a packet may enter, and notes at the link that it left what may answer it.
func (l *linkState) admits(p packet, left *linkState) bool {
	now := time.Now()
	if left.Firewalled {
		left.inside[flowKey{p.proto, p.src, p.dst}] = now.Add(udpMemory)
	}
	if !l.Firewalled {
		return true
	}
	until, ok := l.inside[flowKey{p.proto, p.dst, p.src}]
	return ok && (now.Before(until) || p.proto == protoTCP)
}

// record writes a packet into the capture, while there is room.
func (m *middle) record(ip []byte) {
	if m.pcap == nil || m.room < len(ip) {
		return
	}
	m.room -= len(ip)
	now := time.Now()
	var head [16]byte
	for i, v := range []int{int(now.Unix()), now.Nanosecond() / 1000, len(ip), len(ip)} {
		binary.LittleEndian.PutUint32(head[4*i:], uint32(v))
	}
	m.pcap.Write(head[:])
	m.pcap.Write(ip)
}

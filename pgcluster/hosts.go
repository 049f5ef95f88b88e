package pgcluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Network is hosts of their own on this machine, as far as the network goes: a network
// namespace each, all of them on one bridge, which this process reaches too. It takes
// root. The kernel takes it all away when this process and those started on the hosts
// have ended.
type Network struct {
	Hosts  []*Host
	bridge *os.File // the namespace that the bridge is in
	link   string   // our interface to it; "": none yet
	files  []*os.File
}

// Host is one of them.
type Host struct {
	Address string // its IP address
	space   *os.File
	cut     []*Host
}

// ErrNoHosts says that this process cannot have them: it is not root, or there is no
// ip(8).
var ErrNoHosts = errors.New("no hosts of our own here")

// NewNetwork makes n hosts, at most 200.
func NewNetwork(n int) (*Network, error) {
	w := &Network{}
	err := w.make(n)
	switch {
	case err == nil:
		return w, nil
	case errors.Is(err, os.ErrPermission), errors.Is(err, exec.ErrNotFound):
		err = fmt.Errorf("%w: %w", ErrNoHosts, err)
	default:
		err = fmt.Errorf("make %d hosts: %w", n, err)
	}
	w.Close()
	return nil, err
}

func (w *Network) make(n int) (err error) {
	pid := os.Getpid()
	subnet := fmt.Sprintf("198.18.%d.", pid%250) // RFC 2544 keeps it for tests of networks
	if w.bridge, err = w.space(); err != nil {
		return err
	}
	link := fmt.Sprintf("lsn%d", pid)
	if err := ip("link add", link, "type veth peer name outside netns", path(w.bridge)); err != nil {
		return err
	}
	w.link = link
	if err := errors.Join(ip("addr add", subnet+"254/24 dev", link), ip("link set", link, "up")); err != nil {
		return err
	}
	err = within(w.bridge, func() error {
		return errors.Join(ip("link add hub type bridge"), ip("link set hub up"), ip("link set outside master hub"), ip("link set outside up"))
	})
	for i := 0; i < n && err == nil; i++ {
		err = w.host(fmt.Sprintf("%s%d", subnet, i+1))
	}
	return err
}

// space makes a network namespace. It lives as long as the file is open, or a process
// is in it.
func (w *Network) space() (space *os.File, err error) {
	err = onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		space, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err == nil {
		w.files = append(w.files, space)
	}
	return space, err
}

// host adds a host to the bridge.
func (w *Network) host(address string) error {
	space, err := w.space()
	if err != nil {
		return err
	}
	h := &Host{Address: address, space: space}
	port := fmt.Sprintf("port%d", len(w.Hosts))
	err = within(w.bridge, func() error {
		return errors.Join(ip("link add", port, "type veth peer name eth0 netns", path(space)), ip("link set", port, "master hub"), ip("link set", port, "up"))
	})
	if err != nil {
		return err
	}
	w.Hosts = append(w.Hosts, h)
	return within(space, func() error {
		return errors.Join(
			ip("link set lo up"), ip("addr add", address+"/24 dev eth0"), ip("link set eth0 up"),
			// What a host is cut off from is dropped before it counts as arrived.
			ip("rule add pref 100 lookup local"), ip("rule del pref 0"),
		)
	})
}

// Start starts a program on the host.
func (h *Host) Start(cmd *exec.Cmd) error { return within(h.space, cmd.Start) }

// Cut has nothing pass between the host and others any more, in either direction.
// Nobody is told; what is under way comes through after Heal, if it is sent again.
func (h *Host) Cut(others ...*Host) error {
	for _, o := range others {
		if o == h || slices.Contains(h.cut, o) {
			continue
		}
		err := errors.Join(h.drop(o), o.drop(h))
		if err != nil {
			return err
		}
		h.cut, o.cut = append(h.cut, o), append(o.cut, h)
	}
	return nil
}

func (h *Host) drop(from *Host) error {
	return within(h.space, func() error { return ip("rule add pref 10 from", from.Address, "blackhole") })
}

// Heal ends every Cut.
func (w *Network) Heal() error {
	var all error
	for _, h := range w.Hosts {
		for range h.cut {
			all = errors.Join(all, within(h.space, func() error { return ip("rule del pref 10") }))
		}
		h.cut = nil
	}
	return all
}

// Close lets go of the hosts. What runs on them keeps them until it ends, but we
// do not reach them any more, and may have others of the same addresses.
func (w *Network) Close() {
	if w.link != "" {
		_ = ip("link del", w.link) // fails if the kernel was faster
	}
	for _, f := range w.files {
		_ = f.Close()
	}
}

// path is how another process finds one of our open files.
func path(f *os.File) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()) }

// ip runs ip(8) with words.
func ip(words ...string) error {
	cmd := exec.Command("ip", strings.Fields(strings.Join(words, " "))...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// within calls f on a thread that is in a network namespace. What f starts is in it,
// too, because a child is made by the thread that asks for it.
func within(space *os.File, f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(space.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter a network namespace: %w", err)
		}
		return f()
	})
}

// onThread calls f on a thread of its own, which may change its network namespace, and
// brings the thread back. One that does not come back ends.
func onThread(f func() error) error {
	done := make(chan error)
	// Ends with f, which is waited for.
	go func() {
		runtime.LockOSThread()
		own, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			done <- err
			return
		}
		defer own.Close()
		err = f()
		if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back != nil {
			done <- errors.Join(err, back) // the thread ends with this goroutine, locked as it is
			return
		}
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}

package pgcluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// A cluster's folder holds one folder per node, with the server's data folder
// and its log; and, if it was given rather than made, two files.
const (
	manifestFile = "cluster.json" // written when the cluster is complete
	lockFile     = "cluster.lock" // locked while anyone uses it
)

// openFolder makes or checks the cluster's folder and locks it.
func (c *Cluster) openFolder(ctx context.Context, given string) error {
	if given == "" {
		return c.makeTemporary(ctx)
	}
	dir, err := filepath.Abs(given)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	// The servers' processes are found by their working folder, which the kernel
	// tells without symbolic links.
	if c.dir, err = filepath.EvalSymlinks(dir); err != nil {
		return err
	}
	if err := c.account.reach(c.dir); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(c.dir, lockFile)); errors.Is(err, fs.ErrNotExist) {
		// Before a lock file is put into a folder that is somebody else's.
		if _, err := c.readManifest(); err != nil {
			return err
		}
	}
	return c.lockFolder(ctx)
}

// makeTemporary makes a folder of our own where the servers' account can get to
// it, which the usual place may not be.
func (c *Cluster) makeTemporary(ctx context.Context) error {
	var why []error
	for _, parent := range []string{os.TempDir(), "/tmp", "/var/tmp"} {
		parent, err := filepath.EvalSymlinks(parent)
		if err == nil {
			err = c.account.reach(parent)
		}
		if err != nil {
			why = append(why, err)
			continue
		}
		if c.dir, err = os.MkdirTemp(parent, "lsnproxy-"); err != nil {
			why = append(why, err)
			continue
		}
		c.temporary = true
		if err := c.account.own(c.dir); err != nil {
			return err
		}
		return c.lockFolder(ctx)
	}
	return fmt.Errorf("no place for a temporary folder: %w", errors.Join(why...))
}

// lockFolder waits a few seconds for another user of the folder: the watchdog
// of one that ended a moment ago holds the lock until its servers are gone.
func (c *Cluster) lockFolder(ctx context.Context) error {
	lock, err := os.OpenFile(filepath.Join(c.dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	c.lock = lock
	const patience = 10 * time.Second
	for end := time.Now().Add(patience); ; {
		err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return fmt.Errorf("lock %s: %w", lock.Name(), err)
		}
		if time.Now().After(end) {
			return fmt.Errorf("folder %s is in use by another process", c.dir)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("folder %s is in use by another process: %w", c.dir, context.Cause(ctx))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// manifest is what is remembered of a cluster in a folder that is kept. The
// ports are, because the followers' primary_conninfo holds the leader's.
type manifest struct {
	Ports []int `json:"ports"` // of node1 and so on
}

// readManifest returns the ports of the cluster in the folder, or nil if the
// folder is empty.
func (c *Cluster) readManifest() ([]int, error) {
	path := filepath.Join(c.dir, manifestFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, c.checkEmpty()
	}
	if err != nil {
		return nil, err
	}
	var m manifest
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(m.Ports) == 0 {
		return nil, fmt.Errorf("%s: no ports", path)
	}
	return m.Ports, nil
}

func (c *Cluster) checkEmpty() error {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != lockFile {
			return fmt.Errorf("folder %s is not empty (%s) and holds no cluster of ours: choose another", c.dir, e.Name())
		}
	}
	return nil
}

// writeManifest says that the cluster in the folder is complete.
func (c *Cluster) writeManifest() error {
	var m manifest
	for _, n := range c.nodes {
		m.Ports = append(m.Ports, n.port)
	}
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	path := filepath.Join(c.dir, manifestFile)
	if err := os.WriteFile(path+".new", append(text, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

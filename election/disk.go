package election

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// disk is where votes, decrees and the founding are kept, in one file. What write
// returns without an error survives a crash.
type disk struct{ db *bbolt.DB }

var (
	metaBucket  = []byte("meta")
	entryBucket = []byte("entries") // by index, 8 bytes
	foundingKey = []byte("founding")
	hardKey     = []byte("hard")
	snapshotKey = []byte("snapshot")
)

// openDisk opens the file in dir, or makes it. A new one gets a number of its own:
// to lose the file is to lose the vote, because the number that votes is gone.
func openDisk(dir string) (*disk, kept, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, kept{}, err
	}
	path := filepath.Join(dir, "election.db")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		return nil, kept{}, fmt.Errorf("open %s (does another process use it?): %w", path, err)
	}
	d := &disk{db}
	k, err := d.load()
	if err != nil {
		db.Close()
		return nil, kept{}, fmt.Errorf("%s: %w", path, err)
	}
	return d, k, nil
}

func (d *disk) close() error { return d.db.Close() }

// randomNumber draws a number that nobody else has.
func randomNumber() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint64(b[:])>>1 | 1
}

func (d *disk) load() (k kept, err error) {
	err = d.db.Update(func(tx *bbolt.Tx) error {
		meta, err := tx.CreateBucketIfNotExists(metaBucket)
		if err != nil {
			return err
		}
		entries, err := tx.CreateBucketIfNotExists(entryBucket)
		if err != nil {
			return err
		}
		if meta.Get(foundingKey) == nil {
			if err := meta.Put(foundingKey, marshalJSON(founding{Number: randomNumber()})); err != nil {
				return err
			}
		}
		k, err = loadFrom(meta, entries)
		return err
	})
	return k, err
}

func loadFrom(meta, entries *bbolt.Bucket) (k kept, err error) {
	if err := json.Unmarshal(meta.Get(foundingKey), &k.founding); err != nil {
		return k, err
	}
	if b := meta.Get(snapshotKey); b != nil {
		k.snapshot = new(pb.Snapshot)
		if err := proto.Unmarshal(b, k.snapshot); err != nil {
			return k, err
		}
		if err := checkSnapshot(k.snapshot); err != nil {
			return k, err
		}
	}
	if b := meta.Get(hardKey); b != nil {
		k.hard = new(pb.HardState)
		if err := proto.Unmarshal(b, k.hard); err != nil {
			return k, err
		}
	}
	next := k.snapshot.GetMetadata().GetIndex() + 1
	err = entries.ForEach(func(_, b []byte) error {
		e := new(pb.Entry)
		if err := proto.Unmarshal(b, e); err != nil {
			return err
		}
		if e.GetIndex() != next {
			return fmt.Errorf("entry %d where %d should be", e.GetIndex(), next)
		}
		if _, err := decodeEntry(e); err != nil {
			return err
		}
		next++
		k.entries = append(k.entries, e)
		return nil
	})
	return k, err
}

// write makes writes durable, all or none.
func (d *disk) write(all []write) error {
	if len(all) == 0 {
		return nil
	}
	return d.db.Update(func(tx *bbolt.Tx) error {
		meta, entries := tx.Bucket(metaBucket), tx.Bucket(entryBucket)
		for _, w := range all {
			if err := w.into(meta, entries); err != nil {
				return err
			}
		}
		return nil
	})
}

func (w write) into(meta, entries *bbolt.Bucket) error {
	if w.founding != nil {
		if err := meta.Put(foundingKey, marshalJSON(w.founding)); err != nil {
			return err
		}
	}
	if w.snapshot != nil {
		if err := meta.Put(snapshotKey, marshal(w.snapshot)); err != nil {
			return err
		}
		index := w.snapshot.GetMetadata().GetIndex()
		if err := remove(entries, func(i uint64) bool { return w.cleared || i <= index }); err != nil {
			return err
		}
	}
	if len(w.entries) > 0 {
		first := w.entries[0].GetIndex()
		if err := remove(entries, func(i uint64) bool { return i >= first }); err != nil {
			return err
		}
	}
	for _, e := range w.entries {
		if err := entries.Put(binary.BigEndian.AppendUint64(nil, e.GetIndex()), marshal(e)); err != nil {
			return err
		}
	}
	if w.hard != nil {
		return meta.Put(hardKey, marshal(w.hard))
	}
	return nil
}

// remove deletes the entries whose index is one of which.
func remove(entries *bbolt.Bucket, which func(uint64) bool) error {
	var keys [][]byte
	_ = entries.ForEach(func(key, _ []byte) error {
		if which(binary.BigEndian.Uint64(key)) {
			keys = append(keys, append([]byte(nil), key...))
		}
		return nil
	})
	for _, key := range keys {
		if err := entries.Delete(key); err != nil {
			return err
		}
	}
	return nil
}

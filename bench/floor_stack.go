package main

import (
	"errors"
	"os"
	"path/filepath"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// The stack is what Cairn is made of with nothing of Cairn: net/http, Dragonboat's log
// and Pebble, which keep one record for a key. A put is durable in the log, with all
// that wait at the same time, before it is applied and answered; a get is a look into
// Pebble. There is no Raft, no revision, no lease, no watch and no check of anything.
// The libraries are used as they come: what is done better around them, as Cairn does
// with connections, is not in it.
type stackStore struct {
	log *floorLog
	db  *pebble.DB

	mu      sync.Mutex
	some    sync.Cond // something waits, or it is closed
	waiting []*stackPut
	closed  bool
	durable chan []*stackPut
	wg      sync.WaitGroup
}

type stackPut struct {
	key   string
	value []byte
	done  chan error // one answer
}

// openStack opens a log and a store in a directory.
func openStack(dir string) (*stackStore, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	log, err := openFloorLog(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	store, err := openFloorStore(filepath.Join(dir, "store"))
	if err != nil {
		return nil, err
	}
	s := &stackStore{log: log, db: store.db, durable: make(chan []*stackPut, floorAhead)}
	s.some.L = &s.mu
	s.wg.Go(s.write)
	s.wg.Go(s.apply)
	return s, nil
}

// close ends it. Nothing may be put meanwhile.
func (s *stackStore) close() error {
	s.mu.Lock()
	s.closed = true
	s.some.Signal()
	s.mu.Unlock()
	s.wg.Wait()
	return errors.Join(s.log.close(), s.db.Close())
}

func (s *stackStore) put(key string, value []byte) error {
	p := &stackPut{key, value, make(chan error, 1)}
	s.mu.Lock()
	s.waiting = append(s.waiting, p)
	s.some.Signal()
	s.mu.Unlock()
	return <-p.done
}

// take waits for puts, and returns nil once it is closed.
func (s *stackStore) take() []*stackPut {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.waiting) == 0 && !s.closed {
		s.some.Wait()
	}
	puts := s.waiting
	s.waiting = nil
	return puts
}

// write makes what waits durable, as one entry.
func (s *stackStore) write() {
	defer close(s.durable)
	var entry []byte
	for puts := s.take(); puts != nil; puts = s.take() {
		entry = entry[:0]
		for _, p := range puts {
			entry = append(append(entry, p.key...), p.value...)
		}
		if err := s.log.append(entry); err != nil {
			answer(puts, err)
			continue
		}
		s.durable <- puts
	}
}

// apply gives what is durable to Pebble, and answers.
func (s *stackStore) apply() {
	for puts := range s.durable {
		b := s.db.NewBatch()
		var errs []error
		for _, p := range puts {
			errs = append(errs, b.Set([]byte(p.key), p.value, nil))
		}
		answer(puts, errors.Join(append(errs, b.Commit(pebble.NoSync), b.Close())...))
	}
}

func answer(puts []*stackPut, err error) {
	for _, p := range puts {
		p.done <- err
	}
}

// get hands the value of a key to use, which must not keep it.
func (s *stackStore) get(key string, use func([]byte)) (bool, error) {
	value, closer, err := s.db.Get([]byte(key))
	if errors.Is(err, pebble.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	use(value)
	return true, closer.Close()
}

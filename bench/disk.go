package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"time"

	"github.com/cairnkv/cairn/bench/internal/proc"
	"github.com/cairnkv/cairn/bench/internal/rawhttp"
)

// profileDisk is what is left on the disk when all but the newest versions of keys
// are given up.
const profileDisk = "disk"

// diskSettings say how much is written. Each is a flag.
type diskSettings struct {
	Keys       int `json:"keys"`
	Overwrites int `json:"overwrites"` // of each of them
	// Idle is how long a server must have been at rest to count as having done all
	// that it does in the background.
	Idle time.Duration `json:"idle_ns"`
}

var (
	usualDiskSettings = diskSettings{Keys: 1_000_000, Overwrites: 10, Idle: 5 * time.Second}
	shortDiskSettings = diskSettings{Keys: 5_000, Overwrites: 2, Idle: 200 * time.Millisecond}
)

func (s *diskSettings) register(f *flag.FlagSet) {
	f.IntVar(&s.Keys, "disk-keys", s.Keys, "keys of disk")
	f.IntVar(&s.Overwrites, "disk-overwrites", s.Overwrites, "times that each of them is overwritten")
	f.DurationVar(&s.Idle, "disk-idle", s.Idle, "time at rest after which a server counts as having done its work in the background, in disk")
}

var diskProfileColumns = []column{
	{name: "compacted MB", format: whole, ratio: true},
	{name: "written MB", format: whole, ratio: true},
	{name: "loaded MB", format: whole, ratio: true},
	{name: "content MB", format: whole},
	{name: "write keys/s", format: whole, ratio: true},
	{name: "compact s", format: three, ratio: true},
	{name: "settle s", format: three},
}

// diskWithin bounds one measurement of it.
const diskWithin = time.Hour

// disk looks at servers, as footprint does.
func (b *bench) disk(ctx context.Context) *result {
	d := b.set.Disk
	r := &result{
		profile: profileDisk,
		about: fmt.Sprintf("%s keys, each overwritten %d times in bulk; then history is given up. etcd's database is not defragmented",
			whole(float64(d.Keys)), d.Overwrites),
		columns: diskProfileColumns,
	}
	if err := enoughDisk(b.set.Dir, int64(d.Keys)*int64(d.Overwrites+1)*diskBytesPerKey); err != nil {
		r.notes = append(r.notes, fmt.Sprintf("%s: %v", profileDisk, err))
		return r
	}
	b.alternate(ctx, r, withoutGateway(b.targets), func(t target) (sample, error) {
		return onFreshServer(ctx, b.set, b.data, t, diskWithin, func(ctx context.Context, run *watchRun) (sample, error) { return run.disk(ctx) })
	})
	return r
}

func (r *watchRun) disk(ctx context.Context) (sample, error) {
	d := r.set.Disk
	if err := r.load(ctx, d.Keys); err != nil {
		return sample{}, err
	}
	loaded, err := proc.DiskUsage(r.dir)
	if err != nil {
		return sample{}, err
	}
	c, err := r.target.dial(ctx, r.addr, r.target.loaders)
	if err != nil {
		return sample{}, err
	}
	defer c.close()
	began := time.Now()
	for n := range d.Overwrites {
		// The last values are those that can be looked for.
		value := func(key int) []byte { return r.data.value(uint64(key + (d.Overwrites-1-n)*keysMax)) }
		err := shareOut(ctx, c.sessions, d.Keys, c.sessions[0].batch(), func(s session, keys []int) error { return s.loadValues(keys, value) })
		if err != nil {
			return sample{}, err
		}
	}
	writing := time.Since(began)
	written, err := proc.DiskUsage(r.dir)
	if err != nil {
		return sample{}, err
	}
	began = time.Now()
	if err := r.target.compact(ctx, r.addr); err != nil {
		return sample{}, fmt.Errorf("compacting: %w", err)
	}
	compacting := time.Since(began)
	began = time.Now()
	compacted, err := r.atRest(ctx)
	if err != nil {
		return sample{}, err
	}
	settling := time.Since(began)
	if err := r.spotCheck(ctx, d.Keys); err != nil {
		return sample{}, fmt.Errorf("after the compaction: %w", err)
	}
	return sample{values: []float64{
		megabytes(compacted),
		megabytes(written),
		megabytes(loaded),
		megabytes(int64(d.Keys) * int64(keySize+valueSize)),
		float64(d.Keys*d.Overwrites) / writing.Seconds(),
		compacting.Seconds(),
		settling.Seconds(),
	}}, nil
}

const (
	// restCPU is the part of a processor that a server may use at rest, restDisk what
	// its files may change by.
	restCPU  = 0.05
	restDisk = 1 << 20
)

// atRest waits until a server has nothing left to do, and says what it takes on the
// disk then.
func (r *watchRun) atRest(ctx context.Context) (disk int64, err error) {
	for last := int64(-1); ; last = disk {
		before, err := readUsage(r.pid())
		if err != nil {
			return 0, err
		}
		if err := r.pause(ctx, r.set.Disk.Idle); err != nil {
			return 0, err
		}
		after, err := readUsage(r.pid())
		if err != nil {
			return 0, err
		}
		if disk, err = proc.DiskUsage(r.dir); err != nil {
			return 0, err
		}
		change := max(disk-last, last-disk)
		if last >= 0 && change <= restDisk && after.since(before).server <= max(proc.Tick, time.Duration(restCPU*float64(r.set.Disk.Idle))) {
			return disk, nil
		}
	}
}

// compactCairn gives up all history and returns when that is decided: versions are
// removed in the background.
func compactCairn(ctx context.Context, addr string) error {
	_, err := call(ctx, addr, postBytes(addr, "/v1/compact", `{"keep_revisions":0}`))
	return err
}

// compactEtcd gives up all history and returns when all versions are removed.
func compactEtcd(ctx context.Context, addr string) error {
	answer, err := call(ctx, addr, rangeBytes(addr, keyName(0)))
	if err != nil {
		return err
	}
	var now struct {
		Header struct {
			Revision json.Number `json:"revision"`
		} `json:"header"`
	}
	if err := json.Unmarshal(answer, &now); err != nil {
		return err
	}
	if now.Header.Revision == "" {
		return errors.New("an answer of etcd has no revision")
	}
	_, err = call(ctx, addr, postBytes(addr, "/v3/kv/compaction", fmt.Sprintf(`{"revision":"%s","physical":true}`, now.Header.Revision)))
	return err
}

// call sends one request over a connection of its own; the answer must be 200.
func call(ctx context.Context, addr string, request []byte) ([]byte, error) {
	conn, err := rawhttp.Dial(addr, dialTimeout)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	answer, err := conn.Do(request)
	if err != nil {
		return nil, err
	}
	if answer.Status != 200 {
		return nil, unexpected("answer", answer.Status, answer.Body)
	}
	return answer.Body, nil
}

func postBytes(addr, path, body string) []byte {
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		path, addr, len(body), body)
}

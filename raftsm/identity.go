package raftsm

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cairnkv/cairn/internal/durable"
	"github.com/oklog/ulid/v2"
	"golang.org/x/sys/unix"
)

// Identity says whose a data directory is. It is made once, at the first start,
// and never changes: the log and the store in the directory belong to this
// replica of this cluster and to no other. A copy lies beside the store, so
// that directories of two members can't be mixed.
type Identity struct {
	Format    int       `json:"format"`
	ClusterID ulid.ULID `json:"cluster_id"`
	MemberID  ulid.ULID `json:"member_id"`
	Replica   uint64    `json:"replica"`
	Name      string    `json:"name"`
	// PeerAddress is where the other members reach this one. It never changes
	// under a replica id: a member that moves is replaced.
	PeerAddress string `json:"peer_address"`
	// Members are the first members' peer addresses by replica id.
	Members map[uint64]string `json:"members"`
	// Joined says that it came to a cluster that was there.
	Joined bool `json:"joined,omitempty"`
	// Backup is the SHA-256, in hexadecimal, of the backup that the cluster is
	// filled from; empty if it began empty.
	Backup string `json:"backup,omitempty"`
}

// storedIdentity is the identity in its file.
type storedIdentity struct {
	Identity
	// Checksum is the CRC-32C of the identity as compact JSON. A flipped bit in
	// a name or an address is still JSON.
	Checksum string `json:"checksum"`
}

func (id *Identity) checksum() (string, error) {
	b, err := json.Marshal(id)
	return fmt.Sprintf("%08x", crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))), err
}

// DefaultName is the name of a node that is given none at its first start.
const DefaultName = "n1"

// Spec is what the operator says of a node, at its first start and later.
type Spec struct {
	Name        string
	PeerAddress string
	// InitialCluster is "name=address,…" of all first members, the same text on
	// each, or empty for a cluster of one.
	InitialCluster string
	// Discover, if set, is asked at the first start for the peer addresses of all
	// first members, in place of InitialCluster. They must be the same on each, and
	// one of them is PeerAddress.
	Discover func() ([]string, error)
	// Backup is the SHA-256, in hexadecimal, of the backup that the new cluster is
	// to be filled from, or empty.
	Backup string
	// Join, if set, is asked at the first start for what a running cluster makes of
	// this node. The claim is the same until there is an identity, so that a
	// repetition after a crash is the same join.
	Join func(claim ulid.ULID) (*Joined, error)
}

const (
	identityFormat = 1
	identityFile   = "IDENTITY"
	lockFile       = "LOCK"
	storeDir       = "store"
	raftDir        = "raft"
	// lostAndFound lies in the root of some file systems, for what their repair finds.
	lostAndFound = "lost+found"
)

// Dir is a data directory that this process has locked.
type Dir struct {
	Path     string
	Identity Identity
	// Fresh says that this is the directory's first start.
	Fresh bool
	lock  *os.File
}

// OpenDir locks the data directory, which it creates when it is missing, and
// reads or makes its identity. It refuses a directory that others may write,
// that another process has, or that belongs to another node.
func OpenDir(path string, spec Spec) (*Dir, error) {
	if err := durable.MakeDir(path); err != nil {
		return nil, fmt.Errorf("create the data directory: %w", err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("the data directory %s is not a directory; links are not followed", path)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("the data directory %s may be written by others (mode %04o); chmod 0700 it", path, info.Mode().Perm())
	}
	d := &Dir{Path: path}
	if d.lock, err = lock(filepath.Join(path, lockFile)); err != nil {
		return nil, err
	}
	if err := d.identify(spec); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// Close unlocks the directory.
func (d *Dir) Close() { _ = d.lock.Close() } // closing releases the lock; there is nothing to write

func lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("the data directory %s is locked by another process", filepath.Dir(path))
	}
	return f, nil
}

func (d *Dir) identify(spec Spec) error {
	file := filepath.Join(d.Path, identityFile)
	switch have, err := readIdentity(file); {
	case err == nil:
		d.Identity = have
		return d.check(spec)
	case !errors.Is(err, os.ErrNotExist):
		return marked(err)
	}
	for _, name := range []string{raftDir, storeDir} {
		if err := d.takeOver(name); err != nil {
			return err
		}
	}
	id, err := d.newIdentity(spec)
	if err != nil {
		return err
	}
	d.Identity, d.Fresh = id, true
	// A crash before the rename leaves an empty directory, one after it a
	// directory whose store is missing, which checkStore completes.
	if err := writeIdentity(file, id); err != nil {
		return err
	}
	if spec.Join != nil {
		_ = os.Remove(filepath.Join(d.Path, claimFile)) // nobody looks at it where there is an identity
	}
	return nil
}

// takeOver looks at a part of the directory before there is an identity. It is not there,
// or is empty: one that is to be a file system of its own, or a link to somewhere on
// one, has to be there before the first start.
func (d *Dir) takeOver(name string) error {
	path := filepath.Join(d.Path, name)
	if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	// Where a link leads to nothing, it is found out before anything is made.
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("%s leads nowhere: %w", path, err)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	// What lies here without an identity was left by something else, or lost
	// its identity; starting on it could vote twice.
	if i := slices.IndexFunc(entries, func(e os.DirEntry) bool { return e.Name() != lostAndFound }); i >= 0 {
		return marked(fmt.Errorf("%s has data but no %s file (there is %s): restore the file, or start this member anew in an empty directory",
			d.Path, identityFile, filepath.Join(name, entries[i].Name())))
	}
	return durable.MakeDir(target) // who made it may not have waited for the disk
}

// newIdentity makes an identity, or has a running cluster make it.
func (d *Dir) newIdentity(spec Spec) (Identity, error) {
	if spec.Join == nil {
		return newIdentity(spec)
	}
	claim, err := readClaim(filepath.Join(d.Path, claimFile))
	if err != nil {
		return Identity{}, err
	}
	joined, err := spec.Join(claim)
	if err != nil {
		return Identity{}, fmt.Errorf("join the cluster: %w", err)
	}
	return joined.identity()
}

// readClaim returns under which claim this directory joins. It is durable before
// it is used.
func readClaim(file string) (claim ulid.ULID, err error) {
	b, err := os.ReadFile(file)
	if err == nil {
		if claim, err = ulid.ParseStrict(strings.TrimSpace(string(b))); err != nil {
			err = fmt.Errorf("%s is damaged: remove it, and the member that was added for it", file)
		}
		return claim, err
	}
	if !errors.Is(err, os.ErrNotExist) {
		return claim, err
	}
	claim = ulid.Make()
	return claim, writeDurably(file, []byte(claim.String()))
}

func (d *Dir) check(spec Spec) error {
	id := &d.Identity
	switch {
	case spec.Name != "" && spec.Name != id.Name:
		return fmt.Errorf("the data directory %s belongs to the node %q, not to %q", d.Path, id.Name, spec.Name)
	case spec.PeerAddress != "" && spec.PeerAddress != id.PeerAddress:
		return fmt.Errorf("this member's peer address is %s and can't become %s: start it with --peer-advertise %s, or replace the member", id.PeerAddress, spec.PeerAddress, id.PeerAddress)
	}
	return nil
}

func newIdentity(spec Spec) (Identity, error) {
	id := Identity{Format: identityFormat, MemberID: ulid.Make(), Name: spec.Name, PeerAddress: spec.PeerAddress, Backup: spec.Backup}
	if spec.Discover != nil {
		err := id.discovered(spec)
		return id, err
	}
	if id.Name == "" {
		id.Name = DefaultName
	}
	if spec.InitialCluster == "" {
		id.ClusterID, id.Replica = ulid.Make(), 1
		id.Members = map[uint64]string{1: id.PeerAddress}
		return id, nil
	}
	members, err := ParseInitialCluster(spec.InitialCluster)
	if err != nil {
		return id, err
	}
	for i, m := range members {
		if m.Name == id.Name {
			id.Replica = uint64(i + 1)
			if id.PeerAddress != "" && id.PeerAddress != m.Address {
				return id, fmt.Errorf("the initial cluster says that %s is at %s, this node's peer address is %s", m.Name, m.Address, id.PeerAddress)
			}
			id.PeerAddress = m.Address
		}
	}
	if id.Replica == 0 {
		return id, fmt.Errorf("the initial cluster does not name this node, %q", id.Name)
	}
	id.begin(members, spec.Backup)
	return id, nil
}

// discovered makes the identity of a first member that is known to the others by
// its address alone. Without a name it has that of its place among them.
func (id *Identity) discovered(spec Spec) error {
	addresses, err := spec.Discover()
	if err != nil {
		return err
	}
	var members []InitialMember
	for i, address := range slices.Sorted(slices.Values(addresses)) {
		members = append(members, InitialMember{address, address})
		if address == id.PeerAddress {
			id.Replica = uint64(i + 1)
		}
	}
	if id.Replica == 0 {
		return fmt.Errorf("the first members are at %s, and this node at %s", strings.Join(addresses, ", "), id.PeerAddress)
	}
	if id.Name == "" {
		id.Name = fmt.Sprintf("n%d", id.Replica)
	}
	id.begin(members, spec.Backup)
	return nil
}

// begin completes the identity of a first member. The members, in their order, have
// the first replica ids.
func (id *Identity) begin(members []InitialMember, backup string) {
	id.Members = map[uint64]string{}
	var canonical []string
	for i, m := range members {
		id.Members[uint64(i+1)] = m.Address
		canonical = append(canonical, m.Name+"="+m.Address)
	}
	// The members agree on the cluster's id without having spoken. One that is
	// restored is another cluster than the one before, on the same addresses; and
	// members that would be filled from different backups don't find together.
	seed := "cairn cluster " + strings.Join(canonical, ",")
	if backup != "" {
		seed += " from " + backup
	}
	sum := sha256.Sum256([]byte(seed))
	copy(id.ClusterID[1:], sum[:])
}

// InitialMember is one item of an initial cluster.
type InitialMember struct{ Name, Address string }

// ParseInitialCluster reads "n1=host:7481,n2=host:7481" and returns the members
// by name.
func ParseInitialCluster(text string) ([]InitialMember, error) {
	var members []InitialMember
	names, addresses := map[string]bool{}, map[string]bool{}
	for item := range strings.SplitSeq(text, ",") {
		name, address, ok := strings.Cut(strings.TrimSpace(item), "=")
		if !ok || name == "" || address == "" {
			return nil, fmt.Errorf("the initial cluster has %q where name=host:port is expected", item)
		}
		place := strings.ToLower(address) // Dragonboat tells addresses apart without their case
		if names[name] || addresses[place] {
			return nil, fmt.Errorf("the initial cluster names %s twice", item)
		}
		names[name], addresses[place] = true, true
		members = append(members, InitialMember{name, address})
	}
	slices.SortFunc(members, func(a, b InitialMember) int { return strings.Compare(a.Name, b.Name) })
	return members, nil
}

func readIdentity(file string) (Identity, error) {
	var stored storedIdentity
	b, err := os.ReadFile(file)
	if err != nil {
		return stored.Identity, err
	}
	if err := json.Unmarshal(b, &stored); err != nil {
		return stored.Identity, fmt.Errorf("%s is damaged (%w): restore it, or replace this member", file, err)
	}
	id := stored.Identity
	if id.Format != identityFormat {
		return id, fmt.Errorf("%s has format %d, this version of Cairn knows %d", file, id.Format, identityFormat)
	}
	sum, err := id.checksum()
	if err != nil {
		return id, err
	}
	if sum != stored.Checksum || id.Replica == 0 || id.ClusterID == (ulid.ULID{}) || id.Members[id.Replica] != id.PeerAddress {
		return id, fmt.Errorf("%s is damaged: restore it, or replace this member", file)
	}
	return id, nil
}

// Used reports whether a data directory belongs to a node already.
func Used(dir string) (bool, error) {
	_, err := os.Lstat(filepath.Join(dir, identityFile))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// ReadIdentity returns whose a data directory is.
func ReadIdentity(dir string) (Identity, error) {
	return readIdentity(filepath.Join(dir, identityFile))
}

// writeIdentity makes the file durable before it has its name.
func writeIdentity(file string, id Identity) error {
	sum, err := id.checksum()
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(storedIdentity{id, sum}, "", "  ")
	if err != nil {
		return err
	}
	return writeDurably(file, b)
}

// writeDurably writes a line to a file that has its name only once it is durable.
func writeDurably(file string, b []byte) error {
	f, err := os.OpenFile(file+newSuffix, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(file+newSuffix, file); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(file))
}

// newSuffix is that of a file that is being written.
const newSuffix = ".new"

// shardDir is where a shard's store lies.
func (d *Dir) shardDir(shard uint64) string {
	return filepath.Join(d.Path, storeDir, fmt.Sprintf("shard-%d", shard))
}

// Volumes are what may lie on file systems of their own: the data directory, the logs in
// it, the stores, and that of a shard. Not all of them need to be there.
func (d *Dir) Volumes(shard uint64) []string {
	return []string{d.Path, filepath.Join(d.Path, raftDir), filepath.Join(d.Path, storeDir), d.shardDir(shard)}
}

// checkStore refuses a store that is not this replica's, and one that is
// missing although the replica has a log: the log alone may have lost its
// beginning.
func (d *Dir) checkStore(shard uint64, hasLog bool) error {
	dir := d.shardDir(shard)
	file := filepath.Join(dir, identityFile)
	have, err := readIdentity(file)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if hasLog {
			return fmt.Errorf("the store %s is missing or has no identity, but this replica has a log: start this member anew under a new replica id", dir)
		}
		entries, err := os.ReadDir(dir)
		// What a first start wrote of the identity before it was killed is no data.
		unfinished := func(e os.DirEntry) bool { return e.Name() == identityFile+newSuffix }
		if err == nil && len(slices.DeleteFunc(entries, unfinished)) > 0 {
			return fmt.Errorf("the store %s has data but no identity: start this member anew in an empty directory", dir)
		}
		if err := durable.MakeDir(dir); err != nil {
			return err
		}
		return writeIdentity(file, d.Identity)
	case err != nil:
		return err
	case have.MemberID != d.Identity.MemberID || have.ClusterID != d.Identity.ClusterID || have.Replica != d.Identity.Replica:
		return fmt.Errorf("the store %s belongs to member %s (replica %d of cluster %s), the data directory to member %s (replica %d of cluster %s)",
			dir, have.MemberID, have.Replica, have.ClusterID, d.Identity.MemberID, d.Identity.Replica, d.Identity.ClusterID)
	}
	return nil
}

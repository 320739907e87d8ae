package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// A Chosen is a backup that was found and checked, to be restored.
type Chosen struct {
	Info  Info
	Sum   [32]byte
	place Place
	name  string
	// blocks are the checksums of its blocks: the file is opened anew for the restore,
	// perhaps several times, and may not be the same any more.
	blocks [][sha256.Size]byte
}

// Has reports whether content is the block of the backup with this number, from 1 on.
func (c *Chosen) Has(block uint64, content []byte) bool {
	return block >= 1 && block <= uint64(len(c.blocks)) && c.blocks[block-1] == sha256.Sum256(content)
}

// String says where it is.
func (c *Chosen) String() string { return strings.TrimSuffix(c.place.String(), "/") + "/" + c.name }

// Open opens the file anew.
func (c *Chosen) Open(ctx context.Context) (io.ReadCloser, error) { return c.place.Open(ctx, c.name) }

// Choose finds the backup that path means, a file or a directory of scheduled
// ones, and checks all of it. Of a directory it is the newest, or, if sum is
// given, the one of that sum: what an interrupted restore goes on with.
//
// If the newest one is damaged, that is an error, and not a reason to take an
// older one: somebody must decide that.
func Choose(ctx context.Context, path string, sum *[32]byte) (*Chosen, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("find the backup: %w", err)
	}
	if !info.IsDir() {
		return check(ctx, Directory{Path: filepath.Dir(path)}, filepath.Base(path), sum)
	}
	return ChooseIn(ctx, Directory{Path: path}, sum)
}

// ChooseIn is Choose for a place of scheduled backups.
func ChooseIn(ctx context.Context, p Place, sum *[32]byte) (*Chosen, error) {
	all, err := Newest(ctx, p)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("there is no backup in %s whose name is that of a scheduled one (%s…%s)", p, namePrefix, Extension)
	}
	if sum == nil {
		return check(ctx, p, all[0].Name, nil)
	}
	for _, one := range all {
		// What can't be read, or is another one, is none of this restore's.
		if c, err := check(ctx, p, one.Name, sum); err == nil {
			return c, nil
		} else if ctx.Err() != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("none of the backups in %s has the checksum %s, from which the restore of this node began", p, hex.EncodeToString(sum[:]))
}

// check reads all of a backup.
func check(ctx context.Context, p Place, name string, sum *[32]byte) (*Chosen, error) {
	c := &Chosen{place: p, name: name}
	f, err := c.Open(ctx)
	if err != nil {
		return nil, fmt.Errorf("open the backup: %w", err)
	}
	c.Info, err = verify(ctx, f, 1, func(content []byte) { c.blocks = append(c.blocks, sha256.Sum256(content)) })
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("%s: %w", c, err)
	}
	b, err := hex.DecodeString(c.Info.SHA256)
	if err != nil || copy(c.Sum[:], b) != len(c.Sum) {
		return nil, fmt.Errorf("%s has no checksum", c)
	}
	if sum != nil && c.Sum != *sum {
		return nil, fmt.Errorf("%s is not the backup with the checksum %s, from which the restore of this node began", c, hex.EncodeToString(sum[:]))
	}
	return c, nil
}

package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/raftsm"
	"github.com/oklog/ulid/v2"
)

const (
	// joinRequestLimit bounds one request, joinLimit all of them.
	joinRequestLimit = 10 * time.Second
	joinLimit        = 2 * time.Minute
	joinPause        = 500 * time.Millisecond
)

// joiner returns what asks a running cluster to take this node in.
func (n *Node) joiner(ctx context.Context) func(ulid.ULID) (*raftsm.Joined, error) {
	return func(claim ulid.ULID) (*raftsm.Joined, error) {
		if n.cfg.Join == "" {
			return nil, errors.New("a node with a join token needs the address of a member of its cluster as well (--join)")
		}
		if n.cfg.JoinToken == "" {
			return nil, errors.New("a node without an identity needs a join token, which adding a member gives")
		}
		ctx, cancel := context.WithTimeout(ctx, joinLimit)
		defer cancel()
		body, err := json.Marshal(api.JoinRequest{
			Token: n.cfg.JoinToken, Claim: claim.String(), Name: n.cfg.Name, PeerAddress: n.cfg.peerAddress(),
		})
		if err != nil {
			return nil, err
		}
		for {
			var last error
			for url := range strings.SplitSeq(n.cfg.Join, ",") {
				joined, err := postJoin(ctx, strings.TrimSpace(url), body)
				if err == nil {
					return joined, nil
				}
				var refused *api.Problem
				if errors.As(err, &refused) && refused.Status < 500 && refused.Status != http.StatusTooManyRequests {
					return nil, err // asking again can't help
				}
				last = err
			}
			n.cfg.Logger.Warn("this node has not joined the cluster yet", "err", last)
			if pause(ctx, joinPause); ctx.Err() != nil {
				return nil, last
			}
		}
	}
}

func postJoin(ctx context.Context, url string, body []byte) (*raftsm.Joined, error) {
	ctx, cancel := context.WithTimeout(ctx, joinRequestLimit)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(url, "/")+"/v1/cluster/join", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", api.TypeJSON)
	client := &http.Client{
		Transport: &http.Transport{DisableKeepAlives: true},
		// The token is for who was named.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	answer, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(io.LimitReader(answer.Body, maxAskBytes))
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		p := &api.Problem{}
		if json.Unmarshal(b, p) != nil || p.Status == 0 {
			return nil, fmt.Errorf("%s answered with status %d, and not as Cairn does", url, answer.StatusCode)
		}
		return nil, p
	}
	var j api.Joined
	if err := json.Unmarshal(b, &j); err != nil {
		return nil, fmt.Errorf("%s answered with something else than who this node is: %w", url, err)
	}
	joined := &raftsm.Joined{Replica: j.Replica, Name: j.Name, PeerAddress: j.PeerAddress, Members: map[uint64]string{}}
	if joined.ClusterID, err = ulid.ParseStrict(j.ClusterID); err != nil {
		return nil, fmt.Errorf("%s: cluster id: %w", url, err)
	}
	if joined.MemberID, err = ulid.ParseStrict(j.MemberID); err != nil {
		return nil, fmt.Errorf("%s: member id: %w", url, err)
	}
	for _, p := range j.Peers {
		joined.Members[p.Replica] = p.PeerAddress
	}
	return joined, nil
}

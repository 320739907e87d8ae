package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// grpcWatching are watches of etcd through its own stubs: a connection, a stream
// and a goroutine each.
type grpcWatching struct {
	got     *receipts
	conns   []*grpc.ClientConn
	gates   []chan struct{} // closed when a stalled watcher may read on
	cancel  context.CancelFunc
	running sync.WaitGroup
}

func dialGRPCWatch(ctx context.Context, addr string, subs []subscription, got *receipts) (watching, error) {
	streams, cancel := context.WithCancel(context.WithoutCancel(ctx))
	w := &grpcWatching{got: got, conns: make([]*grpc.ClientConn, len(subs)), gates: make([]chan struct{}, len(subs)), cancel: cancel}
	err := eachAtOnce(ctx, len(subs), func(i int) error { return w.begin(streams, addr, i, subs[i]) })
	if err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

// begin opens the watch of one watcher. By default, gRPC's buffers of writes are
// shared, so that a connection at rest has none.
func (w *grpcWatching) begin(ctx context.Context, addr string, watcher int, s subscription) error {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		return err
	}
	w.conns[watcher] = conn
	stream, err := pb.NewWatchClient(conn).Watch(ctx)
	if err != nil {
		return err
	}
	key, end := s.span()
	create := &pb.WatchCreateRequest{Key: key, RangeEnd: end, StartRevision: int64(s.from)}
	if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
		return err
	}
	answer, err := stream.Recv()
	if err != nil {
		return err
	}
	if !answer.Created || answer.Canceled {
		return fmt.Errorf("a watch was not created: %s", answer.CancelReason)
	}
	gate := make(chan struct{})
	if w.gates[watcher] = gate; !s.stalled {
		close(gate)
	}
	w.running.Go(func() {
		select {
		case <-gate:
			w.got.fail(watcher, w.follow(ctx, stream, watcher))
		case <-ctx.Done():
		}
	})
	return nil
}

// follow reads a watch until it is closed.
func (w *grpcWatching) follow(ctx context.Context, stream pb.Watch_WatchClient, watcher int) error {
	for {
		answer, err := stream.Recv()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errStreamEnded, err)
		}
		if answer.Canceled {
			return fmt.Errorf("the watch was cancelled: %s", answer.CancelReason)
		}
		if err := w.take(watcher, answer.Events, time.Now()); err != nil {
			return err
		}
	}
}

// take takes in the events of an answer. Without fragments an answer has whole
// revisions.
func (w *grpcWatching) take(watcher int, events []*mvccpb.Event, now time.Time) error {
	for i, e := range events {
		if err := w.got.event(watcher, watcher, e.Kv.Value, now); err != nil {
			return err
		}
		revision := e.Kv.ModRevision
		if i == len(events)-1 || events[i+1].Kv.ModRevision != revision {
			if err := w.got.complete(watcher, uint64(revision), now); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *grpcWatching) readOn(watcher int) error {
	close(w.gates[watcher])
	return nil
}

func (w *grpcWatching) close() error {
	w.cancel()
	for _, conn := range w.conns {
		if conn != nil {
			_ = conn.Close() // says only that it was closed before
		}
	}
	w.running.Wait()
	return nil
}

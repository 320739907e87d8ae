package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/cairnkv/cairn/bench/internal/rawsse"
)

// An endsDialer begins to watch the end of leases by the deletes of their keys, and
// returns what ends that.
type endsDialer func(ctx context.Context, addr string, got *endings) (stop func() error, err error)

// watchedKeys is the prefix of all keys.
var watchedKeys = keyName(0)[:len("bench/")]

func dialCairnEnds(_ context.Context, addr string, got *endings) (func() error, error) {
	poller, err := rawsse.NewPoller()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	message := func(_ *rawsse.Conn, m []byte) { got.deleted(bytes.Count(m, []byte(`{"type":"delete",`)), now) }
	request := fmt.Appendf(nil, "GET /v1/watch?prefix=%s HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\n\r\n", watchedKeys, addr)
	c, err := rawsse.Open(addr, request, 0, message)
	if err == nil {
		err = poller.Add(c)
	}
	var failed error
	var running sync.WaitGroup
	running.Go(func() {
		failed = poller.Run(func() { now = time.Now() }, message, func(_ *rawsse.Conn, err error) {
			got.fail(fmt.Errorf("%w: %w", errStreamEnded, err))
		})
	})
	stop := func() error {
		poller.Stop()
		running.Wait()
		return failed
	}
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	return stop, nil
}

func dialGRPCEnds(ctx context.Context, addr string, got *endings) (func() error, error) {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	stop := func() error {
		cancel()
		running.Wait()
		return conn.Close()
	}
	stream, err := pb.NewWatchClient(conn).Watch(ctx)
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	key, end := subscription{prefix: watchedKeys}.span()
	create := &pb.WatchCreateRequest{Key: key, RangeEnd: end}
	err = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}})
	if err == nil {
		var answer *pb.WatchResponse
		if answer, err = stream.Recv(); err == nil && (!answer.Created || answer.Canceled) {
			err = fmt.Errorf("a watch was not created: %s", answer.CancelReason)
		}
	}
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	running.Go(func() {
		for {
			answer, err := stream.Recv()
			if err != nil {
				if ctx.Err() == nil {
					got.fail(fmt.Errorf("%w: %w", errStreamEnded, err))
				}
				return
			}
			n := 0
			for _, e := range answer.Events {
				if e.Type == mvccpb.DELETE {
					n++
				}
			}
			got.deleted(n, time.Now())
		}
	})
	return stop, nil
}

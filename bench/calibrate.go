package main

import (
	"context"
	"fmt"
)

// calibrate shows how the throughput of each target depends on what it is tuned
// by, so that each can be measured at its best. The best values on one machine are
// the defaults of the flags; on another they may differ.
func (b *bench) calibrate(ctx context.Context) []*result {
	var results []*result
	wanted := map[string]bool{}
	for _, t := range b.targets {
		wanted[t.name] = true
	}
	vary := func(what, profileName string, values []int, make func(int) target) {
		var p profile
		for _, candidate := range profiles {
			if candidate.name == profileName {
				p = candidate
			}
		}
		p.name = what
		var targets []target
		for _, v := range values {
			t := make(v)
			if !wanted[t.name] {
				return
			}
			t.name = fmt.Sprintf("%s %d", t.name, v)
			targets = append(targets, t)
		}
		r := b.load(ctx, p, targets)
		if ctx.Err() == nil {
			r.print(b.table)
			results = append(results, r)
		}
	}
	tune := b.set.Tuning
	byConnections := func(n int) target {
		tune := tune
		tune.EtcdWriteConnections, tune.EtcdReadConnections = n, n
		return grpcTarget(b.self, b.data, tune)
	}
	connections := []int{1, 2, 4, 8, 16, 64, 256}
	vary("etcd-write-connections", "put-256", connections, byConnections)
	vary("etcd-read-connections", "get-256", connections, byConnections)
	byTxns := func(of func(string, *dataset, tuning) target) func(int) target {
		return func(n int) target {
			tune := tune
			tune.EtcdTxns = n
			return of(b.self, b.data, tune)
		}
	}
	txns := []int{1, 4, 16, 32, 64, 128}
	vary("etcd-txns over gRPC", "bulk", txns, byTxns(grpcTarget))
	vary("etcd-txns over JSON", "bulk", txns, byTxns(gatewayTarget))
	vary("cairn-streams", "bulk", []int{1, 2, 4, 8, 16}, func(n int) target {
		tune := tune
		tune.CairnStreams = n
		return b.cairn(tune)
	})
	vary("cairn-lines", "bulk", []int{1000, 4000, 10_000, 40_000}, func(n int) target {
		tune := tune
		tune.CairnLines = n
		return b.cairn(tune)
	})
	return results
}

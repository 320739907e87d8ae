// Package examples has small programs for the work that Cairn is for, each in Go
// and as a shell script that needs nothing but curl:
//
//	registry   masters register themselves, a scheduler keeps its list of them true
//	leader     schedulers elect a leader, the others follow and take over
//	cache      keys that live for seven days after the last hit, and what cleans up
//	lock       a counter that several processes increment under a fair lock
//	queue      jobs in order, each taken by one worker
//
// The tests of this package run all of them against a cluster of three nodes, one
// of which is killed on the way.
package examples

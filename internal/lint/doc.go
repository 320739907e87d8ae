// Package lint holds the rules of this repository that a compiler doesn't
// know, as tests: who may import whom, what code that is replicated may look
// at, how files look. Each rule also runs against a small file in testdata that
// breaks it, so that a rule that has stopped seeing anything is noticed.
//
// Nothing imports this package; it has nothing but tests.
package lint

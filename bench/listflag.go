package main

import (
	"fmt"
	"strconv"
	"strings"
)

// A listFlag is a flag of numbers, separated by commas.
type listFlag struct{ to *[]int }

func (f listFlag) String() string {
	if f.to == nil { // package flag asks a zero one for its default
		return ""
	}
	var words []string
	for _, n := range *f.to {
		words = append(words, strconv.Itoa(n))
	}
	return strings.Join(words, ",")
}

func (f listFlag) Set(text string) error {
	var list []int
	for _, word := range splitList(text) {
		n, err := strconv.Atoi(word)
		if err != nil {
			return fmt.Errorf("%q is not a number", word)
		}
		list = append(list, n)
	}
	*f.to = list
	return nil
}

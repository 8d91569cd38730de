// Verifies an audit log with the packages of Go's checksum database: golang.org/x/mod/sumdb/note
// and tlog. None of this is guestlane's code, so it is an independent implementation.
//
//	verify KEY LINES CHECKPOINT [PROOF]
//
// KEY is the output of `guestlane audit key`, LINES and CHECKPOINT are files of the log, PROOF is
// the output of `guestlane audit prove`.
package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func main() {
	if len(os.Args) < 4 {
		fail("usage: verify KEY LINES CHECKPOINT [PROOF]")
	}
	verifier, err := note.NewVerifier(strings.TrimSpace(os.Args[1]))
	check(err)
	lines, err := os.ReadFile(os.Args[2])
	check(err)
	checkpoint, err := os.ReadFile(os.Args[3])
	check(err)
	origin, size, root := open(checkpoint, verifier)

	// The tree over the lines, as tlog stores it.
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		hashes := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			hashes[i] = stored[index]
		}
		return hashes, nil
	})
	count := int64(0)
	for _, line := range bytes.Split(bytes.TrimSuffix(lines, []byte("\n")), []byte("\n")) {
		hashes, err := tlog.StoredHashes(count, line, reader)
		check(err)
		stored = append(stored, hashes...)
		count++
	}
	if count != size {
		fail(fmt.Sprintf("the checkpoint is over %d lines, the file has %d", size, count))
	}
	computed, err := tlog.TreeHash(size, reader)
	check(err)
	if computed != root {
		fail("the root of the lines is not the checkpoint's")
	}
	fmt.Printf("%s: %d lines agree with the checkpoint\n", origin, size)

	if len(os.Args) > 4 {
		text, err := os.ReadFile(os.Args[4])
		check(err)
		var proof struct {
			Records []struct{ Line, Proof string }
		}
		check(json.Unmarshal(text, &proof))
		for _, record := range proof.Records {
			checkRecord(record.Line, record.Proof, verifier)
		}
		fmt.Printf("%d records are proven\n", len(proof.Records))
	}
}

func open(text []byte, verifier note.Verifier) (origin string, size int64, root tlog.Hash) {
	opened, err := note.Open(text, note.VerifierList(verifier))
	check(err)
	fields := strings.Split(opened.Text, "\n")
	if len(fields) < 4 {
		fail("the note is no checkpoint")
	}
	size, err = strconv.ParseInt(fields[1], 10, 64)
	check(err)
	root, err = tlog.ParseHash(fields[2])
	check(err)
	return fields[0], size, root
}

func checkRecord(line, proof string, verifier note.Verifier) {
	head, checkpoint, found := strings.Cut(proof, "\n\n")
	fields := strings.Split(head, "\n")
	if !found || len(fields) < 2 || fields[0] != "c2sp.org/tlog-proof@v1" {
		fail("the proof is not a tlog-proof")
	}
	index, err := strconv.ParseInt(strings.TrimPrefix(fields[1], "index "), 10, 64)
	check(err)
	var path tlog.RecordProof
	for _, field := range fields[2:] {
		var hash tlog.Hash
		raw, err := base64.StdEncoding.DecodeString(field)
		check(err)
		copy(hash[:], raw)
		path = append(path, hash)
	}
	_, size, root := open([]byte(checkpoint), verifier)
	check(tlog.CheckRecord(path, size, root, index, tlog.RecordHash([]byte(line))))
}

func check(err error) {
	if err != nil {
		fail(err.Error())
	}
}

func fail(reason string) {
	fmt.Fprintln(os.Stderr, "error: "+reason)
	os.Exit(1)
}

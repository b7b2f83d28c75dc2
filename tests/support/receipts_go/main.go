// Command receipts computes and verifies with golang.org/x/mod what orchestrator/receipts does in Python (tests/unit/test_receipts_in_go.py).
//
// It reads a request from standard input: leaves, roots and proofs of Python, a signed checkpoint, and a private key. It verifies them, computes the same
// itself, signs the checkpoint's text, and writes the results to standard output. Anything that does not hold ends it with a message.
package main

import (
	"encoding/json"
	"log"
	"os"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type proof struct {
	First, Second int64 // of an inclusion proof: the index and the size
	Hashes        []tlog.Hash
}

type request struct {
	Leaves      [][]byte
	Roots       []tlog.Hash // of sizes 1, 2, …
	Inclusion   []proof
	Consistency []proof
	VKey, Note  string
	SKey        string
}

type response struct {
	Roots       []tlog.Hash
	Inclusion   []proof
	Consistency []proof
	Text, Note  string
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	log.SetFlags(log.Lshortfile)
	var asked request
	must(json.NewDecoder(os.Stdin).Decode(&asked))
	var result response

	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		hashes := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			hashes[i] = stored[index]
		}
		return hashes, nil
	})
	for i, leaf := range asked.Leaves {
		hashes, err := tlog.StoredHashes(int64(i), leaf, reader)
		must(err)
		stored = append(stored, hashes...)
		root, err := tlog.TreeHash(int64(i)+1, reader)
		must(err)
		result.Roots = append(result.Roots, root)
	}
	for _, each := range asked.Inclusion {
		must(tlog.CheckRecord(each.Hashes, each.Second, asked.Roots[each.Second-1], each.First, tlog.RecordHash(asked.Leaves[each.First])))
		hashes, err := tlog.ProveRecord(each.Second, each.First, reader)
		must(err)
		result.Inclusion = append(result.Inclusion, proof{each.First, each.Second, hashes})
	}
	for _, each := range asked.Consistency {
		must(tlog.CheckTree(each.Hashes, each.Second, asked.Roots[each.Second-1], each.First, asked.Roots[each.First-1]))
		hashes, err := tlog.ProveTree(each.Second, each.First, reader)
		must(err)
		result.Consistency = append(result.Consistency, proof{each.First, each.Second, hashes})
	}

	verifier, err := note.NewVerifier(asked.VKey)
	must(err)
	opened, err := note.Open([]byte(asked.Note), note.VerifierList(verifier))
	must(err)
	result.Text = opened.Text
	signer, err := note.NewSigner(asked.SKey)
	must(err)
	signed, err := note.Sign(&note.Note{Text: opened.Text}, signer)
	must(err)
	result.Note = string(signed)
	must(json.NewEncoder(os.Stdout).Encode(result))
}

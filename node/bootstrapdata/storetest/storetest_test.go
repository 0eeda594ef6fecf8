package storetest

import "testing"

func TestMemoryIsAStore(t *testing.T) { Run(t, &Memory{}) }

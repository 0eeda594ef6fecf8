package bootstrapdata

// Seal is seal, for the test of the vector.
var Seal = seal

// Reseal is reseal.
var Reseal = reseal

// Prove checks that a seal proves a disk to hold the record with value.
func Prove(serverDir, text, value string) error {
	p, err := parseSeal(text)
	if err != nil {
		return err
	}
	disk, err := Collect(serverDir)
	if err != nil {
		return err
	}
	return p.prove(serverDir, disk, value)
}

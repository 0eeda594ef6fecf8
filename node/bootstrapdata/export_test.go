package bootstrapdata

// Seal is seal, for the test of the vector.
var Seal = seal

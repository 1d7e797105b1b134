"""`data preview`: what training changes in recordings, to hear and to see."""

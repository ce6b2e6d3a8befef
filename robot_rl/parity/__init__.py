"""Does a robot do what the simulator would do under the same commands, and if not, what is wrong between the two?"""

import os

# Tests run side by side on few cores, where torch's spinning threads cost far more than they give.
os.environ.setdefault("OMP_NUM_THREADS", "1")

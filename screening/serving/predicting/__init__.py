"""What the server does with uploads: reads, predicts, explains; in its process or on Ray."""

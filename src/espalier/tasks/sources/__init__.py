"""Sources: where images, videos and label maps come from. One layout of files a module."""

"""Do other processors make the same bytes?"""
